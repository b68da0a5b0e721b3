//! `foretoken page`: reports of `foretoken bench --json` as one HTML page.

use std::path::{Path, PathBuf};

use super::{output, Failure};
use crate::page::{page, Report};

/// Draw reports of `foretoken bench --json` as one HTML page.
///
/// The page is a single file that loads nothing: plots of speed, of what rounds bring and cost, and of theory beside
/// measurement, with their numbers. Several reports follow one another.
#[derive(clap::Args)]
pub struct Page {
    /// What `foretoken bench --json` printed.
    #[arg(required = true, value_name = "REPORT")]
    reports: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Page {
    pub fn execute(&self) -> Result<(), Failure> {
        output::spares_models(&self.out, self.reports.iter().map(PathBuf::as_path))?;
        let reports: Result<Vec<Report>, _> = self.reports.iter().map(|path| Report::read(path)).collect();
        write(&reports.map_err(|e| Failure::Input(e.to_string()))?, &self.out)
    }
}

/// The page of `reports` at `path`: whole, or not at all.
pub fn write(reports: &[Report], path: &Path) -> Result<(), Failure> {
    output::can_be_made(path)?;
    output::write(path, &page(reports))
}
