//! What is made from the program itself: the schema of the configuration, shell completions, manual pages.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn camring(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_camring")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(arguments: &[&str]) -> String {
    String::from_utf8(camring(arguments).stdout).unwrap()
}

/// The subcommands that `--help` lists, but for help itself.
fn commands() -> Vec<String> {
    let help = text(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let names = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.into_iter().filter(|name| name != "help").collect()
}

#[test]
fn the_schema_is_json_and_describes_the_keys_of_a_camera() {
    let schema: Value = serde_json::from_str(&text(&["schema"])).unwrap();
    let camera = schema["properties"]["camera"]["patternProperties"].as_object().unwrap().values().next().unwrap();
    assert_eq!(camera["properties"]["slots"]["maximum"], 256);
    assert_eq!(camera["properties"]["reconnect"]["properties"]["max"]["default"], "5s");
    assert!(camera["properties"]["url"]["description"].as_str().unwrap().starts_with("Where the camera is"));
}

#[test]
fn every_command_has_a_manual_page_that_the_formatter_takes_without_a_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("made/on/the/way");
    camring(&["man", there.to_str().unwrap()]);
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for page in std::iter::once("camring".to_owned()).chain(commands.iter().map(|name| format!("camring-{name}"))) {
        let path = there.join(format!("{page}.1"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}.1: {error}"));
        assert!(source.contains(".SH SYNOPSIS"), "{page}");
        format_page(&path);
    }
}

/// Has groff set a page; without groff on this machine its source alone was looked at.
fn format_page(page: &Path) {
    let Ok(output) = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-K", "utf8"]).arg(page).output() else {
        return;
    };
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
    assert!(!output.stdout.is_empty());
}

#[test]
fn completions_name_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn bash_completes_commands_and_options_with_the_script() {
    let script = text(&["completions", "bash"]);
    let ask = |words: &str, at: usize| {
        let program = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _camring camring \"${{COMP_WORDS[{at}]}}\" \"\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-c", &program]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("camring comp", 1).trim(), "completions");
    assert!(ask("camring completions ''", 2).lines().any(|word| word == "fish"));
    assert!(ask("camring run --con", 2).lines().any(|word| word == "--config"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_camring")).args(["man", "/proc/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot write manual pages into /proc/nowhere; name a folder"), "{said}");
}
