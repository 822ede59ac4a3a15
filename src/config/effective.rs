//! What a configuration amounts to: every setting of every camera with its origin, without secrets.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::camera::{Camera, Setting};
use super::report::Place;
use super::value::Value;
use super::{Config, Problem};

/// The configuration as TOML, one setting a line, each with its origin as a comment; passwords as `***`.
#[must_use]
pub fn text(config: &Config) -> String {
    config.cameras.values().map(camera_text).collect::<Vec<_>>().join("\n")
}

fn camera_text(camera: &Camera) -> String {
    let mut text = table_text(&format!("[camera.{}]", camera.name), &camera.settings);
    for output in &camera.outputs {
        text += &table_text(&format!("\n[camera.{}.output.{}]", camera.name, output.name), &output.settings);
    }
    text
}

fn table_text(title: &str, settings: &[Setting]) -> String {
    let lines: Vec<(String, String)> =
        settings.iter().map(|setting| (format!("{} = {}", setting.key.path, setting.value), origin(setting))).collect();
    let longest = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
    let mut text = format!("{title}\n");
    for (line, origin) in lines {
        writeln!(text, "{line:longest$}  # {origin}").expect("a string takes every write");
    }
    text
}

fn origin(setting: &Setting) -> String {
    let word = setting.origin.word();
    setting.origin.place().map_or_else(|| word.to_owned(), |place| format!("{word}, {place}"))
}

/// The same as JSON: camera, then key (`output.NAME.KEY` for an output's), then `value`, `origin` and, when it stands in a file, `file`, `line`, `column`.
#[must_use]
pub fn json(config: &Config) -> Json {
    let setting = |setting: &Setting| {
        let value = match &setting.value {
            Value::Integer(number) => json!(number),
            Value::Flag(flag) => json!(flag),
            other => json!(other.text()),
        };
        let mut object = place_json(setting.origin.place());
        object.insert("value".to_owned(), value);
        object.insert("origin".to_owned(), json!(setting.origin.word()));
        (setting.key.path.to_owned(), Json::Object(object))
    };
    let camera = |camera: &Camera| {
        let mut settings: Map<String, Json> = camera.settings.iter().map(setting).collect();
        for output in &camera.outputs {
            let named = |(path, value): (String, Json)| (format!("output.{}.{path}", output.name), value);
            settings.extend(output.settings.iter().map(setting).map(named));
        }
        (camera.name.to_string(), Json::Object(settings))
    };
    Json::Object(config.cameras.values().map(camera).collect())
}

/// A problem as JSON: `severity`, `message`, `hint`, `file`, `line`, `column`, `label` (null without a place) and
/// `also`, the further places.
#[must_use]
pub fn problem_json(problem: &Problem) -> Json {
    let mark = |mark: Option<&(Place, String)>| {
        let mut object = place_json(mark.map(|(place, _)| place));
        object.insert("label".to_owned(), json!(mark.map(|(_, label)| label)));
        object
    };
    let mut object = mark(problem.marks.first());
    object.insert("severity".to_owned(), json!(problem.severity.to_string()));
    object.insert("message".to_owned(), json!(problem.title));
    object.insert("hint".to_owned(), json!(problem.hint));
    let also: Vec<Json> = problem.marks.iter().skip(1).map(|further| Json::Object(mark(Some(further)))).collect();
    object.insert("also".to_owned(), Json::Array(also));
    Json::Object(object)
}

fn place_json(place: Option<&Place>) -> Map<String, Json> {
    let (line, column) = place.map(Place::line_column).unzip();
    let file = place.map(|place| place.file.path.display().to_string());
    let fields = [("file", json!(file)), ("line", json!(line)), ("column", json!(column))];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
