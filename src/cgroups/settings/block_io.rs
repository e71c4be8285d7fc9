//! `linux.resources.blockIO`: v1's `blkio` and v2's `io`.

use super::{Setting, set};
use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

fn io_field(name: &str) -> String {
    format!("linux.resources.blockIO.{name}")
}

/// `major:minor`
fn device(field: &str, major: i64, minor: i64) -> Result<String> {
    for (name, number) in [("major", major), ("minor", minor)] {
        if u32::try_from(number).is_err() {
            return Err(Error::at(format!("{field}.{name}"), format!("{number} is not a device number")));
        }
    }
    Ok(format!("{major}:{minor}"))
}

/// At least one of the two weights MUST be given (config-linux.md, Block IO).
fn check_weights(field: &str, device: &LinuxWeightDevice) -> Result<()> {
    if device.weight().is_none() && device.leaf_weight().is_none() {
        return Err(Error::at(field, "expected weight or leafWeight"));
    }
    Ok(())
}

fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match set(weight) {
        Some(weight) if weight > 1000 => Err(Error::at(field, format!("{weight} is above 1000, the largest weight"))),
        weight => Ok(weight),
    }
}

/// 10 to 1000 becomes 1 to 10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    u64::from(weight.saturating_sub(10)).saturating_mul(9999).div_euclid(990).saturating_add(1)
}

/// The throttle lists, with the names of v1's files and of the keys in v2's `io.max`.
fn throttles(io: &LinuxBlockIo) -> [(&'static str, &'static str, &'static str, Option<&Vec<LinuxThrottleDevice>>); 4] {
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device().as_ref()),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device().as_ref()),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device().as_ref()),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            io.throttle_write_iops_device().as_ref(),
        ),
    ]
}

/// v1.
pub(super) fn v1(io: &LinuxBlockIo, settings: &mut Vec<Setting>) -> Result<()> {
    // The files of the BFQ scheduler have a prefix on most kernels.
    let field = io_field("weight");
    let default = weight(&field, io.weight())?;
    settings.extend(default.map(|weight| Setting::new("blkio.weight", weight, field).or("blkio.bfq.weight", weight)));
    let field = io_field("leafWeight");
    let leaf = weight(&field, io.leaf_weight())?;
    settings.extend(leaf.map(|weight| Setting::new("blkio.leaf_weight", weight, field)));
    for (i, spec) in io.weight_device().iter().flatten().enumerate() {
        let field = io_field(&format!("weightDevice[{i}]"));
        check_weights(&field, spec)?;
        let device = device(&field, spec.major(), spec.minor())?;
        if let Some(weight) = weight(&format!("{field}.weight"), spec.weight())? {
            let value = format!("{device} {weight}");
            let setting = Setting::new("blkio.weight_device", &value, format!("{field}.weight"));
            settings.push(setting.or("blkio.bfq.weight_device", value));
        }
        if let Some(weight) = weight(&format!("{field}.leafWeight"), spec.leaf_weight())? {
            let value = format!("{device} {weight}");
            settings.push(Setting::new("blkio.leaf_weight_device", value, format!("{field}.leafWeight")));
        }
    }
    for (name, file, _, list) in throttles(io) {
        for (i, spec) in list.into_iter().flatten().enumerate() {
            let field = io_field(&format!("{name}[{i}]"));
            let value = format!("{} {}", device(&field, spec.major(), spec.minor())?, spec.rate());
            // 0 takes a limit away.
            settings.push(Setting::new(file, value, field).optional(spec.rate() == 0));
        }
    }
    Ok(())
}

/// v2.
pub(super) fn v2(io: &LinuxBlockIo, settings: &mut Vec<Setting>) -> Result<()> {
    let field = io_field("weight");
    if let Some(weight) = weight(&field, io.weight())? {
        settings.push(Setting::new("io.bfq.weight", weight, field).or("io.weight", io_weight(weight)));
    }
    for (i, spec) in io.weight_device().iter().flatten().enumerate() {
        let field = io_field(&format!("weightDevice[{i}]"));
        check_weights(&field, spec)?;
        let device = device(&field, spec.major(), spec.minor())?;
        if let Some(weight) = weight(&format!("{field}.weight"), spec.weight())? {
            let setting = Setting::new("io.bfq.weight", format!("{device} {weight}"), format!("{field}.weight"));
            let setting = setting.or("io.weight", format!("{device} {}", io_weight(weight)));
            // A share of a device, not a limit: runc goes on without it.
            settings.push(setting.optional(true));
        }
    }
    for (name, _, key, list) in throttles(io) {
        for (i, spec) in list.into_iter().flatten().enumerate() {
            let field = io_field(&format!("{name}[{i}]"));
            let device = device(&field, spec.major(), spec.minor())?;
            // v1's 0, no limit, would be an error.
            let rate = if spec.rate() == 0 { "max".to_owned() } else { spec.rate().to_string() };
            settings.push(Setting::new("io.max", format!("{device} {key}={rate}"), field).optional(spec.rate() == 0));
        }
    }
    Ok(())
}
