//! The growth of time and memory with the number of VMs, as a line.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{
    contestant::{GROWTH, Setup},
    figures::Figures,
    fleet::Fleet,
    progress, usage,
};

const INTERVAL: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);

/// Beyond the VMs of the main part of the run.
pub const LARGE: &[u32] = &[2000, 5000, 10_000];

/// Returns the sizes up to the VMs of the main part of the run.
pub fn sizes(vms: u32) -> [u32; 5] {
    [vms / 10, vms / 4, vms / 2, vms / 4 * 3, vms]
}

/// Measures a new daemon at each of these sizes.
pub fn measure(figures: &mut Figures, setup: &Setup<'_>, fleet: &mut Fleet, sizes: &[u32]) -> Result<()> {
    // Attaching by TCX takes time, and changes neither a tick nor the memory.
    let setup = Setup { attach: "clsact", ..*setup };
    for &vms in sizes {
        progress(&format!("growth, {vms} VMs"));
        fleet.grow_to(vms)?;
        let started = setup.start(GROWTH, INTERVAL, vms)?;
        let daemon = started.context("the default configuration is refused")?;
        let cost = daemon.tick_cost(WINDOW)?;
        figures.add(format!("growth.tick.{vms}"), cost.as_secs_f64() * 1e3);
        figures.add(format!("growth.memory.{vms}"), usage::resident_mib(daemon.pid())?);
        drop(daemon);
        // A daemon that attaches takes more memory than one that finds programs.
        setup.detach(GROWTH)?;
    }
    Ok(())
}

/// Adds the coefficient of determination of each straight line.
pub fn fit(figures: &mut Figures) {
    for what in ["tick", "memory"] {
        let points = points(figures, what);
        if points.len() > 2 {
            figures.add(format!("growth.r2.{what}"), r_squared(&points));
        }
    }
}

/// Returns pairs of VMs and milliseconds or MiB.
pub fn points(figures: &Figures, what: &str) -> Vec<(f64, f64)> {
    let prefix = format!("growth.{what}.");
    let medians = figures.medians_below(&prefix);
    let mut points: Vec<_> = medians.filter_map(|(vms, value)| Some((vms.parse().ok()?, value))).collect();
    points.sort_by(|(one, _): &(f64, f64), (other, _)| one.total_cmp(other));
    points
}

/// The squared correlation, which is that coefficient for a line through all points.
fn r_squared(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>();
    let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    xy * xy / (xx * yy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_and_a_square_does_not() {
        let points = |of: fn(f64) -> f64| [1.0, 2.0, 5.0, 10.0].map(|x| (x, of(x)));
        assert!((r_squared(&points(|x| 3.0 * x + 7.0)) - 1.0).abs() < 1e-9);
        assert!(r_squared(&points(|x| x * x)) < 0.97);
    }

    #[test]
    fn points_are_in_the_order_of_sizes() {
        let mut figures = Figures::default();
        for vms in [1000, 250, 500] {
            figures.add(format!("growth.tick.{vms}"), 2.0 * f64::from(vms));
        }
        assert_eq!(points(&figures, "tick"), [(250.0, 500.0), (500.0, 1000.0), (1000.0, 2000.0)]);
        fit(&mut figures);
        assert!((figures.median("growth.r2.tick").unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(figures.median("growth.r2.memory"), None);
    }
}
