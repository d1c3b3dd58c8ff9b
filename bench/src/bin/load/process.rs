//! What Linux says of another process.

use std::fs;

use anyhow::Context as _;

/// The clock ticks of `/proc` in a second; the same on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, by its number.
pub(crate) struct Process {
    id: u32,
}

impl Process {
    pub(crate) fn new(id: u32) -> Self {
        Self { id }
    }

    /// CPU seconds, user and system, of all its threads.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.read("stat")?;
        // The name in brackets may hold spaces; what follows it does not.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || fields.next().context("stat is short")?.parse::<f64>().context("no number in stat");
        Ok((ticks()? + ticks()?) / TICKS_PER_SECOND)
    }

    /// Bytes of memory that are present.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.id);
        fs::read_to_string(&path).with_context(|| path)
    }
}
