//! The Android emulator: a QEMU with a command line of its own.

use super::VmArgs;
use super::size::number;

/// Whether the command line is the Android emulator's, which names its device with `-avd NAME` or `@NAME`.
pub fn is_android(argv: &[String], options: &[(&str, &str)]) -> bool {
    argv.get(1).is_some_and(|first| first.starts_with('@'))
        || options.iter().any(|(option, _)| *option == "avd")
}

/// Sizes that are given; those of the device's own configuration are not known.
pub fn sizes(options: &[(&str, &str)], vm: VmArgs) -> VmArgs {
    let given = |name: &str| {
        let value = options.iter().rfind(|(option, _)| *option == name).map(|(_, value)| number(value));
        value.flatten().filter(|value| *value > 0)
    };
    VmArgs {
        vcpus: given("cores").and_then(|cores| u32::try_from(cores).ok()),
        max_vcpus: None,
        memory_bytes: given("memory").and_then(|mebibytes| mebibytes.checked_mul(1 << 20)),
        ..vm
    }
}

#[cfg(test)]
mod tests {
    use super::super::argv;
    use super::super::qemu::parse;

    #[test]
    fn the_android_emulator_has_options_of_its_own() {
        for (line, vcpus, memory) in [
            ("-avd Pixel_3a -no-window -cores 4 -memory 3072", Some(4), Some(3 << 30)),
            ("@Pixel_3a -memory 2048", None, Some(2 << 30)),
            ("-netdelay none -avd Pixel_3a -qemu -enable-kvm", None, None),
        ] {
            let argv = argv(&format!("qemu-system-x86_64-headless {line}"));
            let vm = parse("qemu-system-x86_64-headless", &argv).unwrap();
            assert_eq!((vm.vcpus, vm.memory_bytes), (vcpus, memory), "{line}");
        }
    }
}
