//! `cargo xtask vm 5.10 6.1 …`: the privileged tests on other kernels in guests.
//!
//! A guest has the tests and the daemon of this machine with their libraries, and busybox. The result is one table of
//! tests and kernels, with a copy in `docs/kernel-support.md`.

mod binaries;
mod docs;
mod guest;
mod table;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;

use self::binaries::Binaries;
use self::table::Column;

use crate::workspace::Workspace;

/// Debian's kernels by release; the last release is always under development.
const KERNELS: &[(&str, &str)] =
    &[("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("7.2", "sid")];

#[derive(Debug, Args)]
pub struct Options {
    /// Linux versions; all by default.
    #[arg(value_parser = versions())]
    kernels: Vec<String>,
    /// Run only tests whose names contain this text.
    #[arg(long, value_name = "TEXT", conflicts_with = "write_docs")]
    test: Option<String>,
    /// Write the table into docs/kernel-support.md.
    #[arg(long, conflicts_with = "kernels")]
    write_docs: bool,
}

pub fn vm(workspace: &Workspace, options: &Options) -> Result<()> {
    let named = |version: &&str| options.kernels.iter().any(|kernel| kernel == version);
    let versions = KERNELS.iter().map(|(version, _)| *version);
    let wanted: Vec<&str> = versions.filter(|version| options.kernels.is_empty() || named(version)).collect();
    let binaries = Binaries::build(workspace)?;
    let mut columns = Vec::new();
    let mut unavailable = Vec::new();
    for version in wanted {
        match run(&binaries, version, options.test.as_deref()) {
            Ok(column) => columns.push(column),
            Err(error) => {
                eprintln!("xtask: Linux {version}: {error:#}");
                unavailable.push(version);
            }
        }
    }
    println!("\n{}", table::text(&columns));
    ensure!(unavailable.is_empty(), "not tested: Linux {}", unavailable.join(", "));
    if options.write_docs {
        docs::write(workspace, &columns)?;
    }
    let of_column = |column: &Column| -> Vec<String> {
        column.failures().iter().map(|test| format!("{test} on Linux {}", column.version)).collect()
    };
    let failed: Vec<String> = columns.iter().flat_map(of_column).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn run(binaries: &Binaries, version: &str, filter: Option<&str>) -> Result<Column> {
    let Some((_, debian)) = KERNELS.iter().find(|(known, _)| *known == version) else {
        bail!("Linux {version} is in no Debian release that is known here");
    };
    let start = Instant::now();
    let kernel = guest::kernel(version, debian)?;
    let tests: Vec<&String> =
        binaries.tests.iter().filter(|test| filter.is_none_or(|text| test.contains(text))).collect();
    eprintln!("xtask: {} tests on Linux {}", tests.len(), kernel.release);
    let results = guest::run(binaries, &kernel, &tests)?;
    let release = kernel.release.clone();
    let column = Column { version: version.to_owned(), release, debian: (*debian).to_owned(), results };
    eprintln!("xtask: Linux {version}: {} s", start.elapsed().as_secs());
    Ok(column)
}

fn versions() -> Vec<&'static str> {
    KERNELS.iter().map(|(version, _)| *version).collect()
}
