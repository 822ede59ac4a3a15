//! The configuration as a user meets it: the shipped files, and what `camring check` says about wrong ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use camring::config::keys::{KEYS, Key, Scope, Table, of_table};
use camring::config::report::Color;
use camring::config::value::Value;
use camring::config::{
    AutoOr, Camera, Config, LoadOptions, MountRoom, Origin, SecretStore, Source, SourceFile, Switch, Transport,
};
use camring_ring::PixelFormat;
use secrecy::ExposeSecret;

const HARD: &str = "p@ss:w/rd#%?";
const HARD_ENCODED: &str = "p%40ss%3Aw%2Frd%23%25%3F";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// A folder with these files, and the real binary in it with a clean environment.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { folder }
    }

    fn check(&self, args: &[&str]) -> Said {
        let output = Command::cargo_bin("camring")
            .unwrap()
            .current_dir(self.folder.path())
            .env_clear()
            .arg("check")
            .args(args)
            .timeout(Duration::from_secs(30))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn never_says(&self, secret: &str) {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{self:#?}");
    }
}

/// What `camring check` says about one file called `camring.toml`.
fn check(text: &str, args: &[&str]) -> Said {
    let args: Vec<&str> = ["camring.toml"].iter().chain(args).copied().collect();
    Desk::new(&[("camring.toml", text)]).check(&args)
}

fn assert_refused(text: &str, expected: &str) {
    let said = check(text, &[]);
    assert_eq!(said.stderr, expected.trim_start_matches('\n'), "{}", said.stderr);
    assert_eq!((said.code, said.stdout.as_str()), (Some(78), ""));
}

fn parse(text: &str) -> Result<Config, String> {
    load(&[("camring.toml", text)], &LoadOptions::default())
}

fn load(files: &[(&str, &str)], options: &LoadOptions) -> Result<Config, String> {
    let file = |(name, text): &(&str, &str)| SourceFile::new(PathBuf::from(name), (*text).to_owned());
    let files: Vec<_> = files.iter().map(file).collect();
    Config::from_files(&files, options).map_err(|errors| errors.to_string())
}

fn one(text: &str) -> Camera {
    let config = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    config.cameras.into_values().next().unwrap()
}

fn mount(mebibytes: u64) -> LoadOptions {
    LoadOptions { mount: Some(MountRoom { path: "/dev/shm".into(), total_bytes: mebibytes << 20 }) }
}

// --- the shipped files ---

/// The comment and the line with which the shipped file must show a key.
fn annotated(key: &Key) -> String {
    let mut text = String::new();
    for line in [key.doc.to_owned(), format!("({})", key.range())].iter().flat_map(|text| wrapped(text)) {
        text.push_str(&format!("# {line}\n"));
    }
    let is_example = ["url", "user", "password"].contains(&key.path);
    let active = is_example || (key.default.is_some() && key.scope != Scope::Output);
    let value = key.default.or(key.example).unwrap();
    let name = if key.scope == Scope::Shared { key.name() } else { key.path };
    text + &format!("{}{name} = {value}\n", if active { "" } else { "# " })
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + word.len() > 100 {
            lines.push(word.to_owned());
        } else {
            let gap = if line.is_empty() { "" } else { " " };
            line.push_str(&format!("{gap}{word}"));
        }
    }
    lines
}

#[test]
fn the_shipped_file_shows_every_key_as_the_table_of_keys_says() {
    let text = std::fs::read_to_string(shipped("camring.toml")).unwrap();
    let missing: Vec<String> = KEYS.iter().map(annotated).filter(|key| !text.contains(key)).collect();
    assert!(missing.is_empty(), "config/camring.toml lacks, word for word:\n\n{}", missing.join("\n"));
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let config = Config::load(&[shipped("camring.toml")], &LoadOptions::default()).unwrap();
    assert!(!config.cameras.is_empty());
    for camera in config.cameras.values() {
        for key in of_table(Table::Defaults) {
            let setting = camera.settings.iter().find(|setting| setting.key.path == key.path);
            assert_eq!(setting.map(|setting| &setting.value), key.builtin(), "{}", key.path);
            if let Some(setting) = setting {
                assert!(matches!(setting.origin, Origin::Defaults(_)), "{} is not in the file", key.path);
            }
        }
    }
    let nothing = parse("").unwrap();
    assert_eq!((config.log, config.serve, config.version), (nothing.log, nothing.serve, nothing.version));
}

#[test]
fn both_shipped_files_pass_the_check() {
    for (name, cameras) in
        [("camring.toml", "2 cameras (front, lab)"), ("minimal.toml", "2 cameras (front, front-sub)")]
    {
        let path = shipped(name);
        let said = Desk::new(&[]).check(&[path.to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        assert_eq!(said.stdout, format!("ok: {cameras} in {}\n", path.display()));
        assert!(!said.stderr.contains("error") && !said.stderr.contains("warning"), "{}", said.stderr);
    }
}

#[test]
fn the_minimal_file_has_the_two_streams_of_one_device() {
    let config = Config::load(&[shipped("minimal.toml")], &LoadOptions::default()).unwrap();
    let urls: Vec<String> = config.cameras.values().map(url_of).collect();
    assert_eq!(urls.len(), 2);
    assert_ne!(urls[0], urls[1]);
    let host = |url: &str| url.split('/').nth(2).map(str::to_owned);
    assert_eq!(host(&urls[0]), host(&urls[1]));
}

#[test]
fn the_scheme_and_the_key_say_what_kind_of_source_it_is() {
    let source = |text: &str| one(&format!("[camera.a]\n{text}\n")).source;
    assert!(matches!(source("url = \"rtsps://h/x\""), Source::Rtsp(_)));
    assert!(matches!(source("url = \"http://u:p@h/x\""), Source::Http(address) if address.user.is_some()));
    assert!(matches!(source("device = \"/dev/video0\""), Source::Device(path) if path == Path::new("/dev/video0")));
    let long = "pipeline = \"\"\"\n  videotestsrc\n  ! appsink name=out\n\"\"\"";
    assert!(matches!(source(long), Source::Pipeline(_)));
}

#[test]
fn a_secret_inside_a_pipeline_is_never_shown() {
    for pipeline in
        ["rtspsrc user-pw=hunter2 ! appsink name=out", "rtspsrc location=rtsp://u:hunter2@h/x ! appsink name=out"]
    {
        let said = check(&format!("[camera.a]\npipeline = \"{pipeline}\"\n"), &["--effective"]);
        assert!(said.stdout.contains("pipeline = ") && said.stderr.contains("makes the file a secret"), "{said:#?}");
        said.never_says("hunter2");
    }
}

fn url_of(camera: &Camera) -> String {
    match &camera.source {
        Source::Rtsp(address) => address.url.expose(),
        other => panic!("{other:?} is no RTSP camera"),
    }
}

// --- wrong files, through the real binary ---

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    assert_refused(
        "[camera.front]\nurl = \"rtsp://10.0.0.21/x\"\ntranport = \"udp\"\n",
        r#"
error: unknown key `tranport`
 --> camring.toml:3:1
  |
3 | tranport = "udp"
  | ^^^^^^^^ not a key of [camera.front]
  |
  = help: did you mean `transport`?

camring: 1 error
"#,
    );
}

#[test]
fn a_wrong_type_is_told_from_the_right_one() {
    assert_refused(
        "[defaults]\nslots = \"8\"\n",
        r#"
error: slots has the wrong type
 --> camring.toml:2:9
  |
2 | slots = "8"
  |         ^^^ this is a string, expected an integer
  |
  = help: write an integer, 3 to 256

camring: 1 error
"#,
    );
}

#[test]
fn two_errors_of_one_file_are_both_reported() {
    assert_refused(
        "[camera.front]\nurl = \"rtsp://10.0.0.21/x\"\nslots = 2\nstall_after = \"5 parsecs\"\n",
        r#"
error: slots = 2 is out of range
 --> camring.toml:3:9
  |
3 | slots = 2
  |         ^ not between 3 and 256
  |
  = help: write an integer, 3 to 256

error: stall_after = "5 parsecs" is not a duration
 --> camring.toml:4:15
  |
4 | stall_after = "5 parsecs"
  |               ^^^^^^^^^^^ `parsecs` is not a unit of time
  |
  = help: write auto, or a duration, 500ms to 1h

camring: 2 errors
"#,
    );
}

#[test]
fn wrong_syntax_is_shown_at_its_place() {
    assert_refused(
        "[camera.front\nurl = \"rtsp://10.0.0.21/x\"\n",
        r#"
error: this is not TOML
 --> camring.toml:1:14
  |
1 | [camera.front
  |              ^ unclosed table, expected `]`
  |
  = help: the file must be TOML; its keys are checked once the syntax is right

camring: 1 error
"#,
    );
}

#[test]
fn two_rings_with_one_segment_name_are_refused_at_both_places() {
    assert_refused(
        "[camera.a]\ntest = {}\nsegment = \"camring.b\"\n\n[camera.b]\ntest = {}\n",
        r#"
error: the segment name camring.b is taken twice
 --> camring.toml:5:9
  |
3 | segment = "camring.b"
  |           ----------- camera a
4 |
5 | [camera.b]
  |         ^ camera b
  |
  = help: give one of them another segment

camring: 1 error
"#,
    );
}

#[test]
fn a_missing_secret_is_a_note_and_with_secrets_an_error() {
    let text = "[camera.front]\nurl = \"rtsp://10.0.0.21/x\"\nuser = \"viewer\"\npassword = \"${front_pw}\"\n";
    let expected = r#": the secret `front_pw` is nowhere to be found
 --> camring.toml:4:12
  |
4 | password = "${front_pw}"
  |            ^^^^^^^^^^^^^ camera front needs it here
  |
  = help: looked for $CREDENTIALS_DIRECTORY/front_pw (not set), the environment variable front_pw, /etc/camring/credentials/front_pw
"#;
    let note = check(text, &[]);
    assert_eq!((note.code, note.stderr.as_str()), (Some(0), format!("note{expected}").as_str()));
    assert_eq!(note.stdout, "ok: 1 camera (front) in camring.toml\n");
    let error = check(text, &["--secrets"]);
    assert_eq!((error.code, error.stderr), (Some(78), format!("error{expected}\ncamring: 1 error\n")));
}

#[test]
fn a_camera_in_two_files_is_refused_at_both_places() {
    let camera = "[camera.front]\ntest = {}\n";
    let errors = load(&[("camring.toml", camera), ("conf.d/a.toml", camera)], &LoadOptions::default()).unwrap_err();
    assert_eq!(
        errors,
        r#"error: camera front is defined in two files
 --> conf.d/a.toml:1:9
  |
1 | [camera.front]
  |         ^^^^^ here
  |
 ::: camring.toml:1:9
  |
1 | [camera.front]
  |         ----- and here
  |
  = help: rename one of them, or put its keys into one file"#
    );
}

#[test]
fn a_ring_larger_than_the_memory_mount_is_refused() {
    let text = "[camera.lab]\ntest = { size = \"1920x1080\" }\nslots = 16\n";
    let errors = load(&[("camring.toml", text)], &mount(64)).unwrap_err();
    assert_eq!(
        errors,
        r#"error: a ring of 16 slots of 1920x1080 needs 97.0 MiB, /dev/shm has 64.0 MiB
 --> camring.toml:2:17
  |
2 | test = { size = "1920x1080" }
  |                 ^^^^^^^^^^^ the largest frame
3 | slots = 16
  |         -- the number of slots
  |
  = help: fewer slots, a smaller frame, or a larger mount: mount -o remount,size=SIZE /dev/shm"#
    );
    assert!(load(&[("camring.toml", text)], &mount(97)).is_ok());
}

#[test]
fn the_binary_measures_rings_against_the_mount_it_is_given() {
    let text = "[camera.x]\ntest = {}\nmax_size = \"16384x16384\"\nslots = 256\n";
    let said = check(text, &["--shm-dir", "/dev/shm"]);
    if MountRoom::of(Path::new("/dev/shm")).unwrap().total_bytes >= 196_610 << 20 {
        assert_eq!(said.code, Some(0), "{said:#?}");
        return;
    }
    assert_eq!(said.code, Some(78));
    assert!(said.stderr.starts_with("error: a ring of 256 slots of 16384x16384 needs 196610.0 MiB, /dev/shm has "));
    assert!(said.stderr.contains(" --> camring.toml:3:12\n"));
    let said = check("[camera.x]\ntest = {}\n", &["--shm-dir", "/nowhere"]);
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.starts_with("warning: /nowhere cannot be examined, so no ring was measured against it\n"));
}

#[test]
fn rings_that_only_fit_alone_are_a_warning() {
    let text = "[camera.a]\ntest = {}\n[camera.b]\ntest = {}\n";
    let config = load(&[("camring.toml", text)], &mount(64)).unwrap();
    let titles: Vec<&str> = config.warnings.iter().map(|warning| warning.title.as_str()).collect();
    assert_eq!(titles, ["2 rings together need 99.0 MiB, /dev/shm has 64.0 MiB"]);
    let camera = "[camera.a]\nurl = \"rtsp://h/x\"\nslots = 16\n";
    let config = load(&[("camring.toml", camera)], &mount(64)).unwrap();
    assert_eq!(
        config.warnings[0].title,
        "a ring of 16 slots of 1920x1080, if the camera sends that, needs 97.0 MiB, /dev/shm has 64.0 MiB"
    );
}

#[test]
fn without_a_file_the_check_says_what_it_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().display().to_string();
    let errors = Config::find(None, folder.path()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        format!(
            "error: no configuration: looked for {shown}/camring.toml and {shown}/conf.d/*.toml\nhelp: create \
             one of them, or name a file on the command line"
        )
    );
    let said = Desk::new(&[]).check(&["nowhere.toml"]);
    assert_eq!(said.code, Some(78));
    assert!(said.stderr.starts_with("error: nowhere.toml cannot be read: No such file"), "{}", said.stderr);
}

#[test]
fn the_folder_gives_the_main_file_first_and_the_parts_sorted() {
    let files = [("conf.d/b.toml", ""), ("conf.d/a.toml", ""), ("conf.d/.x.toml", ""), ("conf.d/c.txt", "")];
    let desk = Desk::new(&files);
    let names = || -> Vec<PathBuf> {
        let found = Config::find(None, desk.folder.path()).unwrap();
        found.iter().map(|path| path.strip_prefix(desk.folder.path()).unwrap().to_owned()).collect()
    };
    assert_eq!(names(), [Path::new("conf.d/a.toml"), Path::new("conf.d/b.toml")]);
    std::fs::write(desk.folder.path().join("camring.toml"), "").unwrap();
    assert_eq!(names()[0], Path::new("camring.toml"));
}

/// A text and the titles of everything that is wrong with it.
fn assert_titles(text: &str, titles: &[&str]) {
    let errors = parse(text).expect_err(text);
    let found: Vec<&str> = errors.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(found, titles, "{errors}");
}

#[test]
fn impossible_combinations_are_refused() {
    let url = "url = \"rtsp://h/x\"";
    for (keys, titles) in [
        ("", &["this camera has no source"][..]),
        ("test = {}\nfile = \"a.mp4\"", &["this camera has more than one source"]),
        (&format!("{url}\ntest = {{}}"), &["this camera has more than one source"]),
        (&format!("{url}\ndevice = \"/dev/video0\""), &["this camera has more than one source"]),
        ("device = \"/dev/video0\"\nuser = \"u\"", &["user without url"]),
        ("pipeline = \"x\"\npassword = \"${x}\"", &["password without url"]),
        (&format!("{url}\ntls.verify = false"), &["tls.verify = false without tls.allow_insecure = true"]),
        (&format!("{url}\npassword = \"${{x}}\""), &["a password without a user"]),
        ("url = \"rtsp://u:p@h/x\"\nuser = \"v\"", &["user is given twice"]),
        ("url = \"rtsp://u:p@h/x\"\npassword = \"v\"", &["password is given twice"]),
        (
            &format!("{url}\nuser = \"u\"\npassword = \"${{x}}\"\npassword_file = \"y\""),
            &["the password is given twice"],
        ),
        ("test = {}\nuser = \"u\"", &["user without url"]),
        (
            &format!("{url}\nreconnect.first = \"6s\""),
            &["reconnect.first = \"6s\" is longer than reconnect.max = \"5s\""],
        ),
        (
            &format!("{url}\nreconnect.connect_timeout = \"5s\""),
            &["reconnect.request_timeout = \"5s\" is not shorter than reconnect.connect_timeout = \"5s\""],
        ),
    ] {
        assert_titles(&format!("[camera.front]\n{keys}\n"), titles);
    }
}

#[test]
fn one_mistake_makes_one_error() {
    for (text, titles) in [
        ("[camera.a]\nulr = \"rtsp://h/x\"\n", &["unknown key `ulr`"][..]),
        ("[camera.a]\nurl = \"h\"\n", &["url is not an address of a camera"]),
        ("[camera.a]\ntest = 5\n", &["[camera.a.test] has the wrong type"]),
        ("[camera.a]\ntest = {}\n[serve]\npreview = 5\n", &["preview has the wrong type"]),
        (
            "[defaults]\ntls.verify = false\n[camera.a]\nurl = \"rtsp://h/x\"\n[camera.b]\nurl = \"rtsp://h/y\"\n",
            &["tls.verify = false without tls.allow_insecure = true"],
        ),
        ("[camera.a.output.small]\nsize = \"10x\"\n[camera.a]\ntest = {}\n", &["size = \"10x\" is not a size"]),
        ("version = 2\n", &["version = 2 is out of range"]),
        ("camera = 5\n", &["[camera.NAME] has the wrong type"]),
        ("[[camera.a]]\ntest = {}\n", &["[camera.a] has the wrong type"]),
        (
            "[defaults]\ntls.verify = false\nreconnect.first = \"9s\"\n\
             [camera.a]\ntest = {}\n[camera.b]\ntest = {}\n[camera.c]\ntest = {}\n",
            &[
                "tls.verify = false without tls.allow_insecure = true",
                "reconnect.first = \"9s\" is longer than reconnect.max = \"5s\"",
            ],
        ),
        ("slots = 5\nslots = 6\n", &["a key stands twice"]),
    ] {
        assert_titles(text, titles);
    }
}

#[test]
fn a_key_in_the_wrong_table_is_sent_home() {
    for (text, hint) in [
        ("slots = 8\n", "`slots` belongs in [defaults] or in a camera"),
        ("[defaults]\nurl = \"rtsp://h/x\"\n", "`url` belongs in [camera.NAME]"),
        ("[camera.a]\ntest = {}\nconnect_timeout = \"9s\"\n", "did you mean `reconnect.connect_timeout`?"),
        ("[camera.a]\ntest = {}\ndecode.devcie = \"auto\"\n", "did you mean `decode.device`?"),
        ("[camera.a]\ntest = {}\n[camera.a.recconect]\nmax = \"9s\"\n", "did you mean `reconnect`?"),
        ("[log]\ncolour = 1\n", "known here: level, format"),
    ] {
        let errors = parse(text).unwrap_err();
        assert!(errors.ends_with(&format!("= help: {hint}")), "{errors}");
    }
}

#[test]
fn what_serve_is_told_is_taken_over_and_its_token_is_a_secret() {
    let fine = "deinterlace = \"yadif\"\nidle = \"full\"\nmax_fps = 5\nfrozen_after = \"0s\"\n\
                format = \"rgb\"\ntransport = \"auto\"\naccess_units = \"parse\"\n";
    let serve = "[serve]\nlisten = \"[::1]:80\"\npreview = false\ntoken = \"hunter2-hunter2-hunter2\"\n";
    let config = parse(&format!("[camera.a]\ntest = {{}}\n{fine}{serve}")).unwrap();
    assert_eq!((config.serve.listen.to_string().as_str(), config.serve.preview), ("[::1]:80", Switch::Off));
    let token = config.serve.token.as_ref().expect("a token");
    assert_eq!((token.exposed().as_str(), token.to_string().as_str()), ("hunter2-hunter2-hunter2", "***"));
    let errors = parse("[serve]\ntoken = \"hunter2-hunter2-hunter2\"\nlisten = 5\n").unwrap_err();
    assert!(!errors.contains("hunter2"), "{errors}");
}

// --- outputs ---

#[test]
fn an_output_is_what_it_says_and_has_the_rest_from_its_camera() {
    use camring::config::{Fit, LeasePolicy, MaxSize};
    let camera =
        one("[camera.a]\ntest = {}\nslots = 5\nring.lease_policy = \"off\"\nmax_fps = 7\nmax_size = \"640x480\"\n\
         [camera.a.output.plain]\n\
         [camera.a.output.model]\nsize = \"640x640\"\nfit = \"crop\"\nformat = \"rgb-planar-f32\"\nslots = 3\n\
         normalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }\nregion = \"2, 4,100,80\"\nmax_fps = 5\n\
         ring.lease_policy = \"protect\"\nsegment = \"model-input\"\n");
    let [plain, model] = &camera.outputs[..] else { panic!("two outputs") };
    assert_eq!((plain.name.as_str(), plain.segment.as_str()), ("plain", "camring.a.plain"));
    assert_eq!((plain.size, plain.fit, plain.format), (MaxSize::Source, Fit::Letterbox, PixelFormat::Bgr));
    assert_eq!((plain.slots, plain.lease_policy, plain.max_fps, plain.region), (5, LeasePolicy::Off, 0, None));
    assert_eq!((model.segment.as_str(), model.slots, model.max_fps), ("model-input", 3, 5));
    assert_eq!((model.fit, model.lease_policy), (Fit::Crop, LeasePolicy::Protect));
    assert_eq!(model.region.map(|part| [part.x, part.y, part.width, part.height]), Some([2, 4, 100, 80]));
    assert!((model.normalize.scale[0] - 1.0 / (255.0 * 0.25)).abs() < 1e-6);
    assert_eq!(model.normalize.offset, [-2.0; 3]);
    let plans = camring::assemble::plans(&camera, &camring_ring::ShmDir::default()).unwrap();
    let rings: Vec<&str> = plans.iter().map(|plan| plan.options.ring.as_str()).collect();
    assert_eq!(rings, ["a", "a.plain", "a.model"]);
    let capacity = |bytes| camring_ring::Capacity::Bytes(bytes);
    assert_eq!(plans[0].options.capacity, capacity(640 * 480 * 3));
    assert_eq!(plans[2].options.capacity, capacity(640 * 640 * 12));
    assert_eq!(plans[2].options.slots, 3);
}

#[test]
fn the_effective_configuration_shows_outputs_with_what_they_have_from_their_camera() {
    let text = "[camera.a]\ntest = {}\nslots = 5\n[camera.a.output.small]\nsize = \"640x640\"\n";
    let config = parse(text).unwrap();
    let shown = camring::config::effective::text(&config);
    let (_, output) = shown.split_once("\n[camera.a.output.small]\n").expect("a table of its own");
    assert!(output.contains("size = \"640x640\"") && output.contains("segment = \"camring.a.small\""), "{output}");
    assert!(output.lines().any(|line| line.starts_with("slots = 5") && line.contains("camring.toml:3")), "{output}");
    let json = camring::config::effective::json(&config);
    assert_eq!(json["a"]["output.small.size"]["value"], "640x640");
    assert_eq!(json["a"]["output.small.slots"]["value"], 5);
    // What is printed can be read again, and means the same.
    let again = parse(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
    assert_eq!(again.cameras["a"].outputs[0].slots, 5);
}

#[test]
fn what_an_output_cannot_be_is_an_error_at_its_line() {
    for (output, title) in [
        ("normalize = \"0..1\"\n", "normalize with format = \"bgr\""),
        ("fit = \"crop\"\n", "fit without a size"),
        ("size = \"641x480\"\nformat = \"i420\"\n", "a size of 641x480 with format = \"i420\""),
        ("region = \"1920,0,16,16\"\n", "the region begins outside the picture of 1920x1080"),
        ("segment = \"camring.a\"\n", "the segment name camring.a is taken twice"),
        ("max_fps = 241\n", "max_fps = 241 is out of range"),
        ("format = \"rgba\"\n", "format = \"rgba\" is not one of its words"),
        ("max_size = \"640x480\"\n", "unknown key `max_size`"),
    ] {
        assert_titles(&format!("[camera.a]\ntest = {{}}\n[camera.a.output.small]\n{output}"), &[title]);
    }
    let errors =
        parse("[camera.a]\ntest = {}\n[camera.a.output.x]\n[camera.b]\ntest = {}\nsegment = \"camring.a.x\"\n");
    assert!(errors.unwrap_err().contains("the segment name camring.a.x is taken twice"));
    assert_titles(
        "[camera.a]\ntest = {}\nmax_size = \"641x480\"\nformat = \"nv12\"\n",
        &["a size of 641x480 with format = \"nv12\""],
    );
}

#[test]
fn frames_that_come_more_rarely_than_they_may_be_old_are_warned_of() {
    let warned = |text: &str| !parse(text).unwrap().warnings.is_empty();
    assert!(warned("[camera.a]\ntest = {}\nmax_fps = 1\n"));
    assert!(!warned("[camera.a]\ntest = {}\nmax_fps = 1\nstale_after = \"3s\"\n"));
    assert!(!warned("[camera.a]\ntest = {}\n[camera.a.output.x]\nmax_fps = 5\n"));
    assert!(warned("[camera.a]\ntest = {}\n[camera.a.output.x]\nmax_fps = 1\n"));
}

#[test]
fn every_output_counts_when_the_rings_are_weighed_against_the_mount() {
    let text = "[camera.a]\ntest = { size = \"640x480\" }\n[camera.a.output.model]\nsize = \"1280x1280\"\nformat = \"rgb-planar-f32\"\n";
    let file = || SourceFile::new("camring.toml".into(), text.to_owned());
    let errors = Config::from_files(&[file()], &mount(64)).unwrap_err().to_string();
    assert!(errors.contains("a ring of the output model of 8 slots of 1280x1280 rgb-planar-f32 needs"), "{errors}");
    let warnings = Config::from_files(&[file()], &mount(155)).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.title.contains("2 rings together need")), "{warnings:?}");
    assert!(Config::from_files(&[file()], &mount(1024)).unwrap().warnings.is_empty());
}

// --- what a good file means ---

#[test]
fn every_lease_policy_is_accepted_and_nothing_else() {
    use camring::config::LeasePolicy;
    assert_eq!(one("[camera.a]\ntest = {}\n").ring.lease_policy, LeasePolicy::Fresh);
    for (word, policy) in [("fresh", LeasePolicy::Fresh), ("protect", LeasePolicy::Protect), ("off", LeasePolicy::Off)]
    {
        let camera = one(&format!("[camera.a]\ntest = {{}}\nring.lease_policy = \"{word}\"\n"));
        assert_eq!(camera.ring.lease_policy, policy, "{word}");
        let options = camring::assemble::writer_options(&camera, &camring_ring::ShmDir::default()).unwrap();
        assert_eq!(format!("{:?}", options.lease_policy).to_lowercase(), word, "what the ring is made with");
    }
    let errors = parse("[camera.a]\ntest = {}\nring.lease_policy = \"strict\"\n").unwrap_err();
    assert!(errors.contains("fresh, protect, off"), "{errors}");
}

#[test]
fn frozen_after_is_off_or_at_least_a_second() {
    let limit = |text: &str| camring::assemble::policy(&one(&format!("[camera.a]\ntest = {{}}\n{text}"))).frozen_after;
    assert_eq!(limit(""), None);
    assert_eq!(limit("frozen_after = \"0s\"\n"), None);
    assert_eq!(limit("frozen_after = \"30s\"\n"), Some(Duration::from_secs(30)));
    let errors = parse("[camera.a]\ntest = {}\nfrozen_after = \"999ms\"\n").unwrap_err();
    assert!(errors.contains("frozen_after = \"999ms\" is out of range"), "{errors}");
}

#[test]
fn idle_says_what_a_camera_does_while_nobody_reads() {
    use camring::source::Demand;
    let asked = |source: &str, idle: &str| {
        camring::assemble::policy(&one(&format!("[camera.a]\n{source}\nidle = \"{idle}\"\n"))).idle
    };
    let url = "url = \"rtsp://10.0.0.21/x\"";
    assert_eq!(
        ["full", "keyframes", "park"].map(|idle| asked(url, idle)),
        [Demand::All, Demand::Keyframes, Demand::Nothing]
    );
    // Every picture of a test source stands for itself.
    assert_eq!(["keyframes", "park"].map(|idle| asked("test = {}", idle)), [Demand::All, Demand::Nothing]);
}

#[test]
fn a_camera_wins_over_defaults_and_those_over_what_is_built_in() {
    let config = parse(
        "[defaults]\nslots = 4\ndecode.threads = 2\n[camera.a]\ntest = {}\nslots = 5\n[camera.b]\ntest = {}\n\
         [camera.b.decode]\nthreads = 3\n",
    );
    let config = config.unwrap();
    let of = |name: &str| {
        let camera = config.camera(name).unwrap();
        (camera.slots, camera.decode.threads, camera.transport)
    };
    assert_eq!(of("a"), (5, 2, Transport::Tcp));
    assert_eq!(of("b"), (4, 3, Transport::Tcp));
    let hint = config.camera("c").unwrap_err().to_string();
    assert!(hint.contains("cameras there: a, b"), "{hint}");
}

#[test]
fn dotted_keys_inline_tables_and_tables_are_equal() {
    let of = |text: &str| {
        let camera = one(text);
        (camera.decode, camera.tls, camera.reconnect)
    };
    let dotted =
        of("[camera.a]\nurl = \"rtsps://h/x\"\ndecode.device = \"vaapi\"\ntls.ca = \"/ca\"\nreconnect.max = \"9s\"\n");
    let inline = of(
        "[camera.a]\nurl = \"rtsps://h/x\"\ndecode = { device = \"vaapi\" }\ntls = { ca = \"/ca\" }\nreconnect = { max = \"9s\" }\n",
    );
    let nested = of(
        "[camera.a]\nurl = \"rtsps://h/x\"\n[camera.a.decode]\ndevice = \"vaapi\"\n[camera.a.tls]\nca = \"/ca\"\n[camera.a.reconnect]\nmax = \"9s\"\n",
    );
    let root = of(
        "camera.a.url = \"rtsps://h/x\"\ncamera.a.decode.device = \"vaapi\"\ncamera.a.tls.ca = \"/ca\"\ncamera.a.reconnect.max = \"9s\"\n",
    );
    assert_eq!(dotted, inline);
    assert_eq!(dotted, nested);
    assert_eq!(dotted, root);
}

#[test]
fn values_become_plain_types() {
    let camera = one(
        "[camera.a]\nurl = \"rtsp://h/x\"\njitter_buffer = \"250ms\"\nring.mode = \"0644\"\nring.group = \"video\"\n\
         decode.device = \"avdec_h264\"\ntls.pin_sha256 = \"abababababababababababababababababababababababababababababababab\"\n",
    );
    assert_eq!(camera.jitter_buffer, AutoOr::Fixed(Duration::from_millis(250)));
    assert_eq!(camera.stall_after, AutoOr::Auto);
    assert_eq!(camera.ring.mode, 0o644);
    assert_eq!(camera.ring.group, camring::config::Group::Name("video".to_owned()));
    assert_eq!(camera.decode.device, camring::config::DecodeDevice::Element("avdec_h264".to_owned()));
    assert_eq!(camera.tls.pin_sha256, Some([0xab; 32]));
    assert_eq!(camera.segment, "camring.a");
}

#[test]
fn relative_paths_count_from_the_folder_of_their_file() {
    let files = [("etc/camring.toml", "[defaults]\ntls.ca = \"ca.pem\"\n[camera.a]\nfile = \"../loop.mp4\"\n")];
    let config = load(&files, &LoadOptions::default()).unwrap();
    let camera = config.camera("a").unwrap();
    assert!(matches!(&camera.source, Source::File(path) if path == Path::new("etc/../loop.mp4")));
    assert_eq!(camera.tls.ca.as_deref(), Some(Path::new("etc/ca.pem")));
}

#[test]
fn a_camera_of_the_command_line_equals_one_of_a_file() {
    let from_url = Camera::from_url("a", "rtsp://h/x", Some("u"), Some(HARD.into())).unwrap();
    let from_file = one("[camera.a]\nurl = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"p@ss:w/rd#%?\"\n");
    let values = |camera: &Camera| -> Vec<(&str, Value)> {
        camera.settings.iter().map(|setting| (setting.key.path, setting.value.clone())).collect()
    };
    assert_eq!(values(&from_url), values(&from_file));
    let refused = |name, url, user, password: Option<&str>| {
        Camera::from_url(name, url, user, password.map(Into::into)).unwrap_err().to_string()
    };
    assert!(refused("A", "rtsp://h", None, None).starts_with("error: \"A\" is not a name for a camera: 'A' is not"));
    assert!(refused("a", "h", None, None).starts_with("error: url is not an address of a camera: it has no scheme"));
    assert!(refused("a", "rtsp://h", None, Some("x")).starts_with("error: a password without a user"));
}

// --- secrets ---

fn password_of(camera: &Camera, store: &SecretStore) -> String {
    let access = camera.resolve_secrets(store).unwrap_or_else(|errors| panic!("{errors}")).unwrap();
    access.password.unwrap().expose_secret().to_owned()
}

fn empty_store() -> SecretStore {
    SecretStore::new(None, |_: &str| None, "/nowhere")
}

#[test]
fn a_hard_password_comes_out_right_on_every_way() {
    let base = "[camera.a]\nurl = \"rtsp://h/x\"\nuser = \"u\"\n";
    let plain = one(&format!("{base}password = \"{HARD}\"\n"));
    assert_eq!(password_of(&plain, &empty_store()), HARD);
    let in_url = one(&format!("[camera.a]\nurl = \"rtsp://u:{HARD_ENCODED}@h/x\"\n"));
    assert_eq!(password_of(&in_url, &empty_store()), HARD);
    assert_eq!(url_of(&in_url), "rtsp://h/x");
    let store = SecretStore::new(None, |name: &str| (name == "pw").then(|| HARD.into()), "/nowhere");
    let reference = one(&format!("{base}password = \"${{pw}}\"\n"));
    assert_eq!(password_of(&reference, &store), HARD);
    let in_url = one("[camera.a]\nurl = \"rtsp://u:${pw}@h/x\"\n");
    assert_eq!(password_of(&in_url, &store), HARD);
    let desk = Desk::new(&[("pw", &format!("{HARD}\n")), ("c.toml", &format!("{base}password_file = \"pw\"\n"))]);
    restrict(&desk.folder.path().join("pw"), 0o600);
    let config = Config::load(&[desk.folder.path().join("c.toml")], &LoadOptions::default()).unwrap();
    assert_eq!(password_of(config.camera("a").unwrap(), &empty_store()), HARD);
    let given = Camera::from_url("a", "rtsp://h/x", Some("u"), Some(HARD.into())).unwrap();
    assert_eq!(password_of(&given, &empty_store()), HARD);
}

fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_password_file_that_others_may_read_is_refused_at_its_line() {
    let text = "[camera.a]\nurl = \"rtsp://h/x\"\nuser = \"u\"\npassword_file = \"pw\"\n";
    let desk = Desk::new(&[("pw", HARD), ("camring.toml", text)]);
    restrict(&desk.folder.path().join("pw"), 0o644);
    let said = desk.check(&["camring.toml", "--secrets"]);
    assert_eq!(said.code, Some(78));
    let begin = "error: pw has mode 0644, so that others may read or change it\n --> camring.toml:4:17\n";
    assert!(said.stderr.starts_with(begin), "{}", said.stderr);
    said.never_says(HARD);
}

#[test]
fn secrets_stay_out_of_everything_that_is_printed() {
    let hard = "hunter2-sesame";
    for keys in [
        format!("url = \"rtsp://u:{hard}@h/x\""),
        format!("url = \"rtsp://h/x?password={hard}&c=1\""),
        format!("url = \"rtsp://u:{hard}/@h/x\""),
        format!("url = \"rtsp://u:{hard}@h:99999/x\""),
        format!("url = \"http://u:{hard}@h/x\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"{hard}\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"{hard}${{\""),
        format!("url = \"rtsp://h/x\"\npassword = \"{hard}\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npasswrod = \"{hard}\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\ngeheim = \"{hard}\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = {hard}"),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"{hard}"),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = [\"{hard}\"]"),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"\"\"{hard}\n{hard}\"\"\""),
        format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"{hard}\" slots = 1"),
        format!("url = \"rtsp://h/x\"\nlogin = {{ user = \"u\", password = \"{hard}\" }}"),
        format!("test = {{}}\nurl = \"rtsp://u:{hard}@h/x\""),
        format!("file = \"rtsp://u:{hard}@h/x\""),
        format!("pipeline = \"rtspsrc location=rtsp://u:{hard}@h/x ! appsink name=out\""),
        format!("slots = 2 # password = {hard}\nurl = \"rtsp://h/x\""),
    ] {
        let text = format!("[camera.front]\n{keys}\n");
        let desk = Desk::new(&[("camring.toml", &text)]);
        for args in
            [&["camring.toml"][..], &["camring.toml", "--effective"], &["camring.toml", "--json", "--effective"]]
        {
            desk.check(args).never_says(hard);
        }
        let file = SourceFile::new("camring.toml".into(), text);
        let loaded = format!("{:?}", Config::from_files(&[file], &LoadOptions::default()));
        assert!(!loaded.contains(hard), "{loaded}");
    }
}

#[test]
fn a_column_behind_a_secret_is_the_true_one() {
    let text = "camera.front = { url = \"rtsp://u:hunter2-sesame@h/x\", slots = 2 }\n";
    let errors = parse(text).unwrap_err();
    assert!(
        errors
            .contains(&format!(" --> camring.toml:1:{}\n", text.find('2').map_or(0, |_| text.rfind('2').unwrap() + 1)))
    );
    assert!(errors.contains("url = \"rtsp://***@h/x\", slots = 2 }"), "{errors}");
}

#[test]
fn a_password_in_the_file_is_a_warning_and_not_an_error() {
    let said = check("[camera.front]\nurl = \"rtsp://u:hunter2@h/x\"\n", &[]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (
            Some(0),
            r#"warning: a password is written in this file, which makes the file a secret
 --> camring.toml:2:7
  |
2 | url = "rtsp://***@h/x"
  |       ^^^^^^^^^^^^^^^^ inside this address
  |
  = help: write password = "${NAME}" or password_file = "PATH", or keep the file at mode 0640
"#
        )
    );
}

// --- check's other output ---

#[test]
fn the_effective_configuration_names_the_origin_of_every_value() {
    let text = "[defaults]\nslots = 4\n[camera.front]\nurl = \"rtsp://u:hunter2@h/x\"\ntransport = \"udp\"\n";
    let said = check(text, &["--effective"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let lines: Vec<Vec<&str>> = said.stdout.lines().map(|line| line.split("  # ").map(str::trim).collect()).collect();
    for expected in [
        &["[camera.front]"][..],
        &["slots = 4", "defaults, camring.toml:2:9"],
        &["transport = \"udp\"", "camera, camring.toml:5:13"],
        &["decode.device = \"auto\"", "default"],
        &["reconnect.auth_retry = \"1m..15m\"", "default"],
        &["url = \"rtsp://h/x\"", "camera, camring.toml:4:7"],
        &["user = \"u\"", "camera, camring.toml:4:7"],
        &["password = \"***\"", "camera, camring.toml:4:7"],
        &["segment = \"camring.front\"", "default"],
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected:?} is not in\n{}", said.stdout);
    }
    assert!(parse(&said.stdout).is_ok(), "what it prints is a configuration");
}

#[test]
fn json_has_stable_keys() {
    let text = "[camera.front]\nurl = \"rtsp://u:hunter2@h/x\"\n";
    let said = check(text, &["--json", "--effective"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let found: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["ok"], true);
    assert_eq!(found["files"][0], "camring.toml");
    assert_eq!(found["cameras"][0], "front");
    assert_eq!(found["warnings"][0]["severity"], "warning");
    assert_eq!(
        found["effective"]["front"]["slots"],
        serde_json::json!({
            "value": 8, "origin": "default", "file": null, "line": null, "column": null
        })
    );
    let said = check("[camera.front]\nslots = 2\n", &["--json"]);
    assert_eq!(said.code, Some(78));
    let found: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let errors = found["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert_eq!(
        errors[1],
        serde_json::json!({
            "severity": "error",
            "message": "slots = 2 is out of range",
            "hint": "write an integer, 3 to 256",
            "file": "camring.toml",
            "line": 2,
            "column": 9,
            "label": "not between 3 and 256",
            "also": [],
        })
    );
}

#[test]
fn colours_are_for_terminals() {
    let errors = Config::from_files(&[SourceFile::new("a.toml".into(), "x".to_owned())], &LoadOptions::default());
    let problem = &errors.unwrap_err().problems[0];
    assert!(problem.render(Color::Styled).contains('\x1b'));
    assert!(!problem.render(Color::Plain).contains('\x1b'));
}

#[test]
fn arbitrary_bytes_are_answered_and_never_a_crash() {
    let seed = std::fs::read_to_string(shipped("camring.toml")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let mut bytes: Vec<u8> = seed.bytes().skip(random.usize(..seed.len())).take(random.usize(1..400)).collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = *random.choice(b"\"'[]{}=.#\n\\ax0-@:/$\xc3\xa9").unwrap();
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let file = SourceFile::new("camring.toml".into(), text.clone());
        if let Err(errors) = Config::from_files(&[file], &mount(64)) {
            assert!(!errors.to_string().is_empty(), "{text}");
        }
    }
}
