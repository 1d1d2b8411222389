//! Reader `tap_sysfs`: counters of TAPs that netlink missed, from `/sys/class/net/<tap>/statistics`.

use std::collections::{HashMap, HashSet};

use crate::host::Host;
use crate::model::{
    Batch, Device, DeviceId, Nic, NicReadings, NicSource, TapReading, TapStats, VmSet, is_device_name,
};
use crate::net::device_table::DeviceTable;
use crate::net::namespaces::Namespaces;
use crate::readers::cached_file::{Buffer, CachedFile};
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
const FILES: [&str; 8] = [
    "rx_bytes",
    "tx_bytes",
    "rx_packets",
    "tx_packets",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
];

/// Counters of a TAP device of this network namespace, **host** perspective.
///
/// Source: `/sys/class/net/<tap>/statistics`. Bytes are whole Ethernet frames without the frame check sequence and the
/// virtio-net header.
///
/// # Errors
/// When there is no such device, or its files may not be read.
pub fn read_tap_stats(tap: &str) -> Result<TapStats, ReaderError> {
    let gone = || ReaderError::NoDevice { device: tap.to_owned() };
    let files = is_device_name(tap).then(|| DeviceFiles::open(&Host::default(), tap));
    let files = files.transpose()?.flatten().ok_or_else(gone)?;
    files.read(&mut Buffer::new())?.ok_or_else(gone)
}

#[derive(Debug)]
struct TapSysfs {
    host: Host,
    kept: HashMap<DeviceId, DeviceFiles>,
}

impl TapSysfs {
    /// `None` where the device is gone.
    fn read_one(
        &mut self,
        nic: &Nic,
        device: &Device,
        table: &DeviceTable,
        buffer: &mut Buffer,
    ) -> Result<Option<TapReading>, ReaderError> {
        let files = match self.kept.remove(&device.id) {
            Some(files) => Some(files),
            // The name may mean another device by now.
            None => DeviceFiles::open(&self.host, &nic.tap)?.filter(|_| table.is_still(nic, device)),
        };
        let Some(files) = files else { return Ok(None) };
        let Some(stats) = files.read(buffer)? else { return Ok(None) };
        self.kept.insert(device.id, files);
        Ok(Some(TapReading { source: NicSource::Sysfs, stats }))
    }
}

impl Reader for TapSysfs {
    fn reads_devices(&self) -> bool {
        true
    }

    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let mut buffer = Buffer::new();
        let unread =
            vms.nics().zip(&mut batch.nics).filter(|(nic, now)| nic.netns.is_none() && now.tap.is_none());
        for (nic, readings) in unread {
            let read =
                readings.device.map(|device| self.read_one(nic, &device, namespaces.table(), &mut buffer));
            match read.transpose() {
                Ok(Some(Some(reading))) => {
                    readings.tap = Some(reading);
                    report.items += 1;
                }
                Ok(_) => report.error(ReaderError::NoDevice { device: nic.tap.clone() }),
                Err(error) => report.error(error),
            }
        }
        let is_read = |readings: &NicReadings| readings.tap.is_some_and(|tap| tap.source == NicSource::Sysfs);
        let read: HashSet<DeviceId> = batch
            .nics
            .iter()
            .filter(|readings| is_read(readings))
            .filter_map(|readings| Some(readings.device?.id))
            .collect();
        self.kept.retain(|id, _| read.contains(id));
        report
    }

    fn read_final(&mut self, removals: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) {
        let mut buffer = Buffer::new();
        for (at, nic) in batch.removed_nics(removals).filter(|(_, nic)| nic.netns.is_none()) {
            let readings = &mut batch.nics[at];
            if let (Some(device), None) = (readings.device, readings.tap) {
                // What cannot be read is as it was.
                readings.tap =
                    self.read_one(nic, &device, namespaces.table(), &mut buffer).unwrap_or_default();
            }
        }
    }
}

/// The open files of one device.
#[derive(Debug)]
struct DeviceFiles([CachedFile; FILES.len()]);

impl DeviceFiles {
    /// `None` when there is no such device.
    fn open(host: &Host, tap: &str) -> Result<Option<Self>, ReaderError> {
        let directory = host.net_device(tap).join("statistics");
        let files = FILES.iter().map(|file| CachedFile::open(directory.join(file)));
        let files = files.collect::<Result<Option<Vec<_>>, _>>()?;
        Ok(files.and_then(|files| files.try_into().ok()).map(Self))
    }

    /// `None` when the device is gone.
    fn read(&self, buffer: &mut Buffer) -> Result<Option<TapStats>, ReaderError> {
        let mut numbers = [0; FILES.len()];
        for (number, file) in numbers.iter_mut().zip(&self.0) {
            match file.read_number(buffer)? {
                Some(read) => *number = read,
                None => return Ok(None),
            }
        }
        let [rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped] =
            numbers;
        Ok(Some(TapStats {
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            rx_errors,
            tx_errors,
            rx_dropped,
            tx_dropped,
        }))
    }
}
