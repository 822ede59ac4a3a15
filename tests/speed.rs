//! What users measure on their own host: `camring bench`, and `camring watch --latency` on a ring and on a camera.

#[cfg(feature = "sim")]
mod system;
mod writer;

use serde_json::Value;
use writer::{Shm, WriterProcess, until};

#[test]
#[ignore = "the writer process that the other tests start"]
fn writer_process() {
    writer::writer_main();
}

/// The keys documented in `src/cli/bench.rs`.
const BENCH_KEYS: [&str; 21] = [
    "verdict",
    "why",
    "size",
    "readers",
    "fps",
    "frames",
    "slots",
    "view_us_p50",
    "view_us_p99",
    "copy_us_p50",
    "copy_us_p99",
    "publish_us_p50",
    "publish_us_p99",
    "read",
    "skipped",
    "full_speed_fps",
    "full_speed_gb_s",
    "memcpy_gb_s",
    "slowest_reader_fps",
    "processors",
    "load",
];

#[test]
fn bench_measures_with_real_readers_and_leaves_no_ring() {
    let shm = Shm::new();
    let found = shm.camring(&["bench", "--size", "320x240", "--readers", "3", "--seconds", "1", "--json"]);
    let found = found.with_code(0).json();
    for key in BENCH_KEYS {
        assert!(found.get(key).is_some(), "no {key} in {found}");
    }
    assert_eq!(found.as_object().unwrap().len(), BENCH_KEYS.len(), "{found}");
    // Each of the frames was read or counted as skipped by each of the readers.
    let of = |key: &str| found[key].as_u64().unwrap();
    assert_eq!((of("frames"), of("readers"), of("read") + of("skipped")), (30, 3, 90), "{found}");
    assert!(of("read") > 0 && ["good", "busy", "poor"].contains(&found["verdict"].as_str().unwrap()), "{found}");
    let figure = |key: &str| found[key].as_f64().unwrap();
    assert!(0.0 < figure("view_us_p50") && figure("view_us_p50") <= figure("view_us_p99"), "{found}");
    assert!(figure("view_us_p50") <= figure("copy_us_p50"), "a copy is there before its view: {found}");
    assert!(figure("slowest_reader_fps") > 0.0 && figure("full_speed_fps") > 0.0, "{found}");
    assert_eq!(shm.camring(&["list", "--json"]).with_code(0).json(), Value::Array(vec![]));
}

#[test]
fn bench_says_it_in_words() {
    let shm = Shm::new();
    let ended = shm.camring(&["bench", "--size", "320x240", "--readers", "1", "--seconds", "1"]).with_code(0);
    let first_words: Vec<&str> = ended.text().lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(first_words, ["30", "view", "copy", "publish", "skipped", "speed", "verdict"], "{ended:?}");
    let wrong = shm.camring(&["bench", "--size", "huge"]).with_code(2);
    assert!(wrong.errors.contains("expected a size such as 1920x1080"), "{wrong:?}");
}

#[test]
fn watch_latency_counts_from_arrival_where_no_time_is_painted() {
    let shm = Shm::new();
    let _front = WriterProcess::start(&shm, "front");
    let found = shm.camring(&["watch", "front", "-n", "20", "--latency", "--json"]).with_code(0);
    let lines: Vec<Value> = found.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = lines.last().unwrap();
    assert!(lines[..lines.len() - 1].iter().all(|line| line["event"] == "state"), "{lines:?}");
    let seen = (found["event"].as_str(), found["basis"].as_str(), found["frames"].as_u64(), found["ring"].as_str());
    assert_eq!(seen, (Some("latency"), Some("arrival"), Some(20), Some("front")), "{found}");
    let counts = found["buckets"].as_array().unwrap().iter().map(|bucket| bucket["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 20, "{found}");
    assert!(found["p50_ms"].as_f64() <= found["p99_ms"].as_f64(), "{found}");
    let text = shm.camring(&["watch", "front", "-n", "5", "--latency"]).with_code(0).text().to_owned();
    assert!(text.contains("front: 5 frames") && text.contains("arrival of the last packet"), "{text}");
    assert!(text.contains("<= ") && text.contains('#') && text.contains("99 %"), "{text}");
}

#[cfg(feature = "sim")]
#[test]
fn watch_latency_counts_from_the_painted_time_of_a_simulated_camera() {
    let shm = system::Shm::new();
    let sim = system::Sim::spawn(&["--size", "640x360", "--gop", "200ms"]);
    let _daemon = system::Daemon::spawn(&shm, "cam", &sim.url);
    let ring = shm.attach("cam");
    until("a frame", || ring.peek().is_ok().then_some(()));
    let mut command = system::camring();
    command.args(["watch", "cam", "-n", "30", "--latency", "--json", "--shm-dir"]).arg(shm.path());
    let ended = writer::Ended::of(command).with_code(0);
    let found: Value = serde_json::from_str(ended.text().lines().last().unwrap()).unwrap();
    assert_eq!((found["basis"].as_str(), found["frames"].as_u64()), (Some("painted"), Some(30)), "{found}");
    assert_eq!(found["unreadable"], 0, "{found}");
    // The picture was painted before its last packet arrived, so this is above zero and no clock is mixed up.
    let worst = found["max_ms"].as_f64().unwrap();
    assert!(found["p50_ms"].as_f64().unwrap() > 0.0 && worst < 30_000.0, "{found}");
}
