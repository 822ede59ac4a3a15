//! The library as a user meets it: installed, found by pkg-config, compiled against, linked both ways, read from.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{C, CXX, Source, Synthetic, command, compile, measured, mount, pkg_config, prefix, program, root, run};
use tempfile::TempDir;

/// The functions that the header declares.
fn functions() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("include/camring.h")).unwrap();
    // What is written out in the header is no function of the library.
    let lines = text.lines().filter(|line| !line.starts_with([' ', '/', '*']) && !line.starts_with("static inline"));
    let declared = lines.filter_map(|line| line.split_once('('));
    let names = declared.filter_map(|(before, _)| before.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("camring_")).map(str::to_owned).collect()
}

/// The third column of `nm` for the symbols that others may link to.
fn symbols(nm: &mut Command) -> BTreeSet<String> {
    run(nm).lines().filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect()
}

fn shared() -> PathBuf {
    prefix().join("lib/libcamring.so")
}

#[test]
fn nothing_but_the_headers_functions_can_be_linked_to() {
    assert_eq!(functions().len(), 12);
    assert_eq!(symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(shared())), functions());
    let library = prefix().join("lib/libcamring.a");
    assert_eq!(symbols(Command::new("nm").args(["--extern-only", "--defined-only"]).arg(library)), functions());
}

#[test]
fn the_shared_library_needs_the_c_library_alone_and_says_its_name() {
    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(shared()));
    let values = |tag: &str| {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(values("(SONAME)"), ["libcamring.so.0"]);
    let mut needed = values("(NEEDED)");
    // The loader is named where thread-local variables are; it is part of the C library.
    needed.retain(|name| !name.starts_with("ld-linux"));
    needed.sort();
    assert_eq!(needed, ["libc.so.6", "libgcc_s.so.1"]);
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    let real = std::fs::canonicalize(shared()).unwrap();
    assert_eq!(std::fs::canonicalize(prefix().join("lib/libcamring.so.0")).unwrap(), real);
    assert_eq!(real.file_name().unwrap().to_str(), Some(concat!("libcamring.so.", env!("CARGO_PKG_VERSION"))));
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len() / 1024;
    measured(format!(
        "libcamring.so {} KiB, libcamring.a {} KiB",
        bytes(&real),
        bytes(&prefix().join("lib/libcamring.a"))
    ));
}

#[test]
fn pkg_config_leads_to_the_installed_library() {
    let (include, lib) = (prefix().join("include"), prefix().join("lib"));
    assert_eq!(pkg_config(&["--cflags"]), [format!("-I{}", include.display())]);
    assert_eq!(pkg_config(&["--libs"]), [format!("-L{}", lib.display()), "-lcamring".to_owned()]);
    assert_eq!(pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
}

fn is_there(compiler: &str) -> bool {
    let found = Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no {compiler} here");
    }
    found
}

#[test]
fn the_headers_compile_without_a_warning() {
    let flags = pkg_config(&["--cflags"]);
    let strict = ["-Wconversion", "-Wshadow", "-Wold-style-cast", "-Wzero-as-null-pointer-constant"];
    for (compiler, is_required) in [("gcc", true), ("clang", false)] {
        if is_required || is_there(compiler) {
            for standard in ["-std=c99", "-std=c11"] {
                let options = [&C[..], &[standard, "-fsyntax-only", "-Wconversion", "-Wshadow"]].concat();
                compile(compiler, &options, "tests/programs/layout.c", &flags);
            }
        }
    }
    for (compiler, is_required) in [("g++", true), ("clang++", false)] {
        if is_required || is_there(compiler) {
            // The header alone; the source is C that happens to be C++ too.
            let options = [&CXX[..], &["-std=c++11", "-fsyntax-only", "-xc++"], &strict].concat();
            compile(compiler, &options, "tests/programs/layout.c", &flags);
            let options = [&CXX[..], &["-fsyntax-only"], &strict].concat();
            compile(compiler, &options, "tests/programs/wrapper.cpp", &flags);
        }
    }
}

/// A ring that a process of its own writes.
fn live(shm: &TempDir, ring: &str, options: &[&str]) -> Synthetic {
    Synthetic::start(shm.path(), ring, &[&["--size", "320x240", "--fps", "200"], options].concat())
}

/// The second word of every line, and the first, which must grow.
fn lines(output: &str) -> Vec<Vec<&str>> {
    output.lines().map(|line| line.split(' ').collect()).collect()
}

#[test]
fn the_example_that_copies_runs_as_printed() {
    let shm = mount();
    let _writer = live(&shm, "front", &["--size", "320x240,640x480", "--per-size", "20"]);
    let out = run(command(&program("examples/latest.c"), shm.path()).args(["front", "60"]));
    assert_eq!(out.lines().count(), 60, "{out}");
    let mut last = 0;
    for line in lines(&out) {
        let (seq, skipped): (u64, u64) = (line[0].parse().unwrap(), line[2].parse().unwrap());
        assert!(last == 0 || seq == last + skipped + 1, "{line:?} after {last}");
        assert_eq!(line.last().unwrap().parse(), Ok(seq * 31 % 251), "{line:?}");
        last = seq;
    }
    assert!(out.contains("320x240") && out.contains("640x480"), "both sizes: {out}");
}

#[test]
fn the_example_that_leases_runs_as_printed() {
    let shm = mount();
    let _writer = live(&shm, "front", &[]);
    let out = run(command(&program("examples/lease.c"), shm.path()).args(["front", "50"]));
    assert_eq!(out.lines().count(), 50, "{out}");
    for line in lines(&out) {
        let seq: u64 = line[0].parse().unwrap();
        let sum: u64 = (0..320 * 240 * 3).map(|k| (seq * 31 + k) % 251).sum();
        assert_eq!(line[2], format!("{:.2}", sum as f64 / 230_400.0), "{line:?}");
    }
}

#[test]
fn the_example_that_waits_for_several_rings_runs_as_printed() {
    let shm = mount();
    let _writers = [live(&shm, "front", &[]), live(&shm, "back", &["--fps", "50"])];
    let out = run(command(&program("examples/wait_any.c"), shm.path()).args(["200", "front", "back"]));
    let mut last = [0, 0];
    for line in lines(&out) {
        let ring = ["front", "back"].iter().position(|name| *name == line[0]).expect("one of the two");
        let seq: u64 = line[1].parse().unwrap();
        assert!(seq > last[ring], "{line:?} after {last:?}");
        last[ring] = seq;
        assert_eq!(line[3].parse(), Ok((seq * 31 + 115_200) % 251), "{line:?}");
    }
    assert_eq!(out.lines().count(), 200);
    assert!(last.iter().all(|seq| *seq > 0), "frames of both rings: {last:?}");
}

/// OpenCV's core, if its headers are installed.
fn opencv() -> Option<Vec<String>> {
    let headers = Path::new("/usr/include/opencv4");
    if !headers.join("opencv2/core.hpp").exists() {
        println!("skipped: no libopencv-core-dev here");
        return None;
    }
    // Not -I: OpenCV's own headers are not made for every warning.
    let mut flags = pkg_config(&["--cflags", "--libs"]);
    flags.extend(["-isystem".to_owned(), headers.display().to_string(), "-lopencv_core".to_owned()]);
    Some(flags)
}

#[test]
fn the_example_for_opencv_runs_as_printed() {
    let Some(flags) = opencv() else { return };
    let shm = mount();
    let _writer = live(&shm, "front", &[]);
    let built = compile("g++", &CXX, "examples/opencv.cpp", &flags);
    let out = run(command(&built, shm.path()).args(["front", "20"]));
    assert_eq!(out.lines().count(), 20, "{out}");
    for line in lines(&out) {
        let seq: u64 = line[0].parse().unwrap();
        let sum: u64 = (0..320 * 240).map(|k| (seq * 31 + k * 3) % 251).sum();
        let blue: f64 = line[2].parse().unwrap();
        assert!((blue - sum as f64 / 76_800.0).abs() < 0.01, "{line:?}: expected {}", sum as f64 / 76_800.0);
    }
}

/// Runs tests/programs/wrapper.cpp, which says what it needs published.
fn wrapper(built: &Path) {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut cpp = common::Asked::start(built, shm.path(), &[]);
    let mut steps = Vec::new();
    loop {
        let step = cpp.line();
        match step.as_str() {
            "first" => source.publish(8, 4),
            "larger" => source.publish(64, 48),
            "smaller" => source.publish(7, 5),
            "lap" => source.lap(20),
            _ => break steps.push(step),
        };
        steps.push(step);
        cpp.send("");
    }
    assert_eq!(steps, ["first", "larger", "smaller", "lap", "done"]);
    assert!(cpp.ends().success());
}

#[test]
fn the_cpp_header_keeps_its_promises() {
    wrapper(&program("tests/programs/wrapper.cpp"));
}

#[test]
fn the_cpp_header_shows_frames_to_opencv() {
    let Some(flags) = opencv() else { return };
    wrapper(&compile("g++", &[&CXX[..], &["-DWITH_OPENCV"]].concat(), "tests/programs/wrapper.cpp", &flags));
    // Asked for by its name, OpenCV needs not be included first.
    wrapper(&compile(
        "g++",
        &[&CXX[..], &["-DWITH_OPENCV", "-DCAMRING_WITH_OPENCV"]].concat(),
        "tests/programs/wrapper.cpp",
        &flags,
    ));
}

#[test]
fn a_statically_linked_program_runs_without_the_shared_library() {
    let flags = pkg_config(&["--static", "--cflags", "--libs"]);
    let flags: Vec<String> = flags.iter().map(|flag| flag.replace("-lcamring", "-l:libcamring.a")).collect();
    let built = compile("gcc", &C, "examples/lease.c", &flags);
    let needed = run(Command::new("readelf").args(["-d", "-W"]).arg(&built));
    assert!(!needed.contains("libcamring"), "{needed}");
    let shm = mount();
    let _writer = live(&shm, "front", &[]);
    let out = run(command(&built, shm.path()).args(["front", "5"]).env_remove("LD_LIBRARY_PATH"));
    assert_eq!(out.lines().count(), 5);
}

#[test]
fn packages_are_built_behind_a_destdir() {
    let to = tempfile::tempdir().unwrap();
    let deps = std::env::current_exe().unwrap();
    run(Command::new("bash")
        .arg(root().join("../scripts/install-capi"))
        .args(["--prefix", "/usr", "--from"])
        .arg(deps.parent().unwrap())
        .env("DESTDIR", to.path()));
    let pc = std::fs::read_to_string(to.path().join("usr/lib/pkgconfig/camring.pc")).unwrap();
    assert!(pc.starts_with("prefix=/usr\n"), "{pc}");
    assert!(to.path().join("usr/include/camring.hpp").exists());
}

/// The blocks of a language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("```").expect("the block's end").0.to_owned()).collect()
}

/// Compiles a text as a program of its own.
fn compiled(text: &str, compiler: &str, flags: &[&str], source: &Path) -> PathBuf {
    std::fs::write(source, text).unwrap();
    compile(compiler, flags, source.to_str().expect("UTF-8"), &pkg_config(&["--cflags", "--libs"]))
}

#[test]
fn the_programs_of_the_readme_run_as_printed() {
    for (language, compiler, flags) in [("c", "gcc", C), ("cpp", "g++", CXX)] {
        let shm = mount();
        let [text] = blocks("README.md", language).try_into().expect("one program of each language");
        let built = compiled(&text, compiler, &flags, &shm.path().join(format!("readme.{language}")));
        let mut source = Source::new(shm.path(), "front", 4);
        source.lap(1);
        // They print through a buffer, which a pipe makes a large one.
        let built = built.to_str().expect("UTF-8");
        let mut running = common::Asked::start(Path::new("stdbuf"), shm.path(), &["-oL", built]);
        let line = running.line();
        assert!(line.starts_with("frame 1, "), "{line}");
    }
}

#[test]
fn the_lines_of_c_in_the_first_readme_compile() {
    let folder = tempfile::tempdir().unwrap();
    let lines = blocks("../README.md", "c").concat();
    let text = format!(
        "#include <camring.h>\n#include <inttypes.h>\n#include <stdio.h>\nint main(void)\n{{\n\
         static uint8_t pixels[100000];\n{lines}\nreturn 0;\n}}\n"
    );
    compiled(&text, "gcc", &C, &folder.path().join("lines.c"));
}
