// temporary: figures
use super::tests::backup::*;
use super::*;
use putback_store::local::LocalStore;
use std::sync::Arc;

#[test]
fn speed() {
    let Ok(source) = std::env::var("SPEED_SOURCE") else { return };
    let base = std::path::PathBuf::from(std::env::var("SPEED_DIR").unwrap());
    std::fs::create_dir_all(&base).unwrap();
    let store = LocalStore::new(base.join("repo"));
    let t = Instant::now();
    let repo = repository(Arc::new(store), 32 << 20, 128 << 10);
    let snapshot = back_up(&repo, std::path::Path::new(&source), &|_, _| true);
    println!("backup {:.2} s, {:?}", t.elapsed().as_secs_f64(), snapshot.statistics);
    for n in 0..std::env::var("SPEED_N").map_or(1, |n| n.parse().unwrap()) {
        let mut o = super::tests::options(&base.join(format!("target{n}")));
        o.verify = std::env::var("SPEED_VERIFY").is_ok();
        let report = restore(&repo, &snapshot, b"/data", &o, &()).unwrap();
        println!("restore {:.2} s {report:?}", report.duration.as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
