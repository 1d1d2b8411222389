//! Reader `tap_sysfs`: counters of TAPs that netlink missed, from `/sys/class/net/<tap>/statistics`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use crate::host::Host;
use crate::model::{Batch, Nic, NicKind, NicSource, Removals, TapReading, TapStats, VmSet, is_device_name};
use crate::net::namespaces::Namespaces;
use crate::readers::cached_file::{Buffer, CachedFile, is_gone};
use crate::readers::{ReadReport, Reader, ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "tap_sysfs",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            StartOutcome::Running(Box::new(TapSysfs { host: context.host.clone(), kept: HashMap::new() }))
        }))
    },
};

/// The files of a TAP that are read, below its directory.
const FILES: [&str; 9] = [
    "ifindex",
    "statistics/rx_bytes",
    "statistics/tx_bytes",
    "statistics/rx_packets",
    "statistics/tx_packets",
    "statistics/rx_errors",
    "statistics/tx_errors",
    "statistics/rx_dropped",
    "statistics/tx_dropped",
];

/// Counters of a TAP device of this network namespace, **host** perspective.
///
/// Source: `/sys/class/net/<tap>/statistics`. Bytes are whole Ethernet frames without the frame check sequence and the
/// virtio-net header.
///
/// # Errors
/// When there is no such device, or its files may not be read.
pub fn read_tap_stats(tap: &str) -> Result<TapStats, ReaderError> {
    let host = Host::default();
    let gone = || ReaderError::NoDevice { device: tap.to_owned() };
    let device = Device::open(&host, tap)?.ok_or_else(gone)?;
    Ok(device.read(&mut Buffer::new())?.ok_or_else(gone)?.stats)
}

#[derive(Debug)]
struct TapSysfs {
    host: Host,
    kept: HashMap<Nic, Device>,
}

impl TapSysfs {
    fn read_one(&mut self, nic: &Nic, buffer: &mut Buffer) -> Result<Option<TapReading>, ReaderError> {
        let device = match self.kept.remove(nic) {
            Some(device) if device.is_still(&self.host, &nic.tap) => Some(device),
            _ => Device::open(&self.host, &nic.tap)?,
        };
        let Some(device) = device else { return Ok(None) };
        let Some(reading) = device.read(buffer)? else { return Ok(None) };
        self.kept.insert(nic.clone(), device);
        Ok(Some(reading))
    }
}

impl Reader for TapSysfs {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let mut buffer = Buffer::new();
        for nic in vms.local_nics() {
            // Read by netlink; or a second NIC on the same device, which was read by this loop.
            if batch.taps.contains_key(nic) {
                continue;
            }
            match self.read_one(nic, &mut buffer) {
                Ok(Some(reading)) => {
                    batch.taps.insert(nic.clone(), reading);
                    report.items += 1;
                }
                Ok(None) => report.error(ReaderError::NoDevice { device: nic.tap.clone() }),
                Err(error) => report.error(error),
            }
        }
        self.kept
            .retain(|nic, _| batch.taps.get(nic).is_some_and(|reading| reading.source == NicSource::Sysfs));
        report
    }

    fn read_final(&mut self, removals: &Removals, _: &mut Namespaces, batch: &mut Batch) {
        let mut buffer = Buffer::new();
        for (nic, ifindex) in removals.ifindexes.iter().filter(|(nic, _)| nic.netns.is_none()) {
            if batch.taps.contains_key(nic) {
                continue;
            }
            // What cannot be read is as it was.
            let Ok(Some(device)) = Device::open(&self.host, &nic.tap) else { continue };
            let Ok(Some(reading)) = device.read(&mut buffer) else { continue };
            if reading.ifindex == *ifindex {
                batch.taps.insert(nic.clone(), reading);
            }
        }
    }
}

/// The open files of one device.
#[derive(Debug)]
struct Device {
    /// Tells the device from another one that got its name since.
    inode: u64,
    kind: NicKind,
    files: Vec<CachedFile>,
}

impl Device {
    /// `None` when there is no such device.
    fn open(host: &Host, tap: &str) -> Result<Option<Self>, ReaderError> {
        let Some(inode) = inode(host, tap)? else { return Ok(None) };
        let directory = host.net_device(tap);
        let files = FILES
            .iter()
            .map(|file| CachedFile::open(directory.join(file)))
            .collect::<Result<Option<Vec<_>>, _>>()?;
        // Only macvtap has such a directory.
        let kind = if directory.join("macvtap").exists() { NicKind::Macvtap } else { NicKind::Tap };
        Ok(files.map(|files| Self { inode, kind, files }))
    }

    fn is_still(&self, host: &Host, tap: &str) -> bool {
        matches!(inode(host, tap), Ok(Some(inode)) if inode == self.inode)
    }

    /// `None` when the device is gone.
    fn read(&self, buffer: &mut Buffer) -> Result<Option<TapReading>, ReaderError> {
        let mut numbers = [0; FILES.len()];
        for (number, file) in numbers.iter_mut().zip(&self.files) {
            match file.read_number(buffer)? {
                Some(read) => *number = read,
                None => return Ok(None),
            }
        }
        let [
            ifindex,
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            rx_errors,
            tx_errors,
            rx_dropped,
            tx_dropped,
        ] = numbers;
        let stats = TapStats {
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            rx_errors,
            tx_errors,
            rx_dropped,
            tx_dropped,
        };
        let ifindex = u32::try_from(ifindex).unwrap_or(0);
        Ok(Some(TapReading { ifindex, source: NicSource::Sysfs, kind: self.kind, stats }))
    }
}

fn inode(host: &Host, tap: &str) -> Result<Option<u64>, ReaderError> {
    if !is_device_name(tap) {
        return Ok(None);
    }
    let path = host.net_device(tap);
    match std::fs::metadata(&path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(ReaderError::io("look at", &path, error)),
    }
}
