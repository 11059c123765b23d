//! Walks the given paths and says how many entries a second it saw: `walk [--twice] PATH...`
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use putback_engine::backup::FilterOptions;
use putback_engine::platform::Users;
use putback_engine::source::filter::Filter;
use putback_engine::source::roots::Roots;
use putback_engine::source::walk::{Step, Walker};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let roots = Roots::resolve(&paths, &std::env::current_dir()?);
    let filter = Arc::new(Filter::new(&FilterOptions::default())?);
    // The first round fills the system's caches.
    for _ in 0..4 {
        let started = Instant::now();
        let mut walker = Walker::new(&roots, filter.clone(), Arc::new(Users::new()));
        let (mut directories, mut others, mut problems) = (0_u64, 0_u64, 0_u64);
        while let Some(step) = walker.next_step()? {
            match step {
                Step::Enter { .. } => directories += 1,
                Step::Entry(_) => others += 1,
                Step::Problem { .. } => problems += 1,
                _ => {}
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let rate = (directories + others) as f64 / seconds;
        println!(
            "{directories} directories, {others} others, {problems} problems: {rate:.0} entries/s"
        );
    }
    Ok(())
}
