//! The license and the panic handler of an object, which every program needs.

/// Loops, so that the verifier rejects a program with a reachable panic.
// A check of the whole workspace runs on the host, where `std` has a handler.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
