//! The JSON schema of the configuration, for editors: made from the table of keys, so that both say the same.

use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::keys::{Key, Support, Table, of_table};
use super::name::{NAME_MAX, SEGMENT_MAX};
use super::size::{SIDE_MAX, SIDE_MIN};
use super::value::Kind;

/// Durations, also two with `..` between them: numbers and units, whatever they are.
const DURATION: &str = r"^\s*[0-9][0-9A-Za-zµ.\s]*$";

/// The schema (draft 2020-12) of a configuration file, also of one of `conf.d`.
///
/// What it accepts is a superset of what `camring check` accepts: ranges of durations and combinations of keys are left
/// to that.
#[must_use]
pub fn schema() -> Json {
    let mut root = table(Table::Root, "");
    let names = format!("^[a-z0-9][a-z0-9_-]{{0,{}}}$", NAME_MAX - 1);
    let named = |of: Json| json!({ "type": "object", "patternProperties": { names.as_str(): of }, "additionalProperties": false });
    let mut camera = table(Table::Camera, "");
    put(&mut camera, "output", named(table(Table::Output, "")));
    put(&mut root, "defaults", table(Table::Defaults, ""));
    put(&mut root, "camera", named(camera));
    put(&mut root, "serve", table(Table::Serve, ""));
    put(&mut root, "log", table(Table::Log, ""));
    let head = [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("title", "Configuration of camring"),
        ("description", "/etc/camring/camring.toml and /etc/camring/conf.d/*.toml"),
    ];
    for (name, text) in head {
        root[name] = text.into();
    }
    root
}

fn put(table: &mut Json, name: &str, schema: Json) {
    table["properties"][name] = schema;
}

/// The object of the keys of `table` whose path begins with `prefix`.
fn table(of: Table, prefix: &str) -> Json {
    let mut properties = Map::new();
    for key in of_table(of).filter(|key| key.path.starts_with(prefix)) {
        let rest = &key.path[prefix.len()..];
        let (name, schema) = match rest.split_once('.') {
            Some((name, _)) if properties.contains_key(name) => continue,
            Some((name, _)) => (name, table(of, &format!("{prefix}{name}."))),
            None => (rest, value(key)),
        };
        properties.insert(name.to_owned(), schema);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// What one key takes, with its documentation and its default.
fn value(key: &Key) -> Json {
    let mut schema = match (key.support, key.default.map(as_json)) {
        (Support::DefaultOnly, Some(default)) => json!({ "const": default }),
        (Support::Full | Support::DefaultOnly, _) => kind(&key.kind),
    };
    schema["description"] = format!("{}\n\n{}.", key.doc, key.range()).into();
    if let Some(default) = key.default {
        schema["default"] = as_json(default);
    } else if let Some(example) = key.example {
        schema["examples"] = json!([as_json(example)]);
    }
    schema
}

/// A default or example of the table; a test reads them all.
fn as_json(toml: &str) -> Json {
    match DeValue::parse(toml).expect("defaults and examples are TOML; a test reads them all").get_ref() {
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).map_or(Json::Null, Json::from),
        DeValue::String(text) => text.as_ref().into(),
        other => unreachable!("no key has a default or an example such as {other:?}; a test reads them all"),
    }
}

fn kind(kind: &Kind) -> Json {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match kind {
        Kind::Words(words) => json!({ "enum": words }),
        Kind::Either(words, other) => json!({ "anyOf": [{ "enum": words }, self::kind(other)] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration { .. } | Kind::DurationRange { .. } => text(DURATION),
        Kind::Size => {
            let digits = SIDE_MIN.to_string().len()..=SIDE_MAX.to_string().len();
            let side = format!("[0-9]{{{},{}}}", digits.start(), digits.end());
            text(&format!("^{side}x{side}$"))
        }
        Kind::Mode => text("^[0-7]{3,4}$"),
        Kind::Group | Kind::Element => text("^[A-Za-z0-9_-]+$"),
        Kind::Segment => text(&format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$", SEGMENT_MAX - 1)),
        Kind::Fingerprint => text("^:*([0-9A-Fa-f]:*){64}$"),
        Kind::Address => text(r"^.+:[0-9]{1,5}$"),
        Kind::Url => text(r"^([Rr][Tt][Ss][Pp][Ss]?|[Hh][Tt][Tt][Pp])://\S+$"),
        Kind::Path | Kind::User | Kind::Password | Kind::Pipeline => json!({ "type": "string", "minLength": 1 }),
        Kind::Region => text(r"^(\s*\+?[0-9]+\s*,){3}\s*\+?[0-9]+\s*$"),
        Kind::Normalize => {
            let three = json!({ "type": "array", "items": { "type": "number" }, "minItems": 3, "maxItems": 3 });
            let table = json!({
                "type": "object",
                "properties": { "mean": three, "std": three },
                "required": ["mean", "std"],
                "additionalProperties": false,
            });
            json!({ "anyOf": [{ "const": "0..1" }, table] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    /// The schema of a key in one of the objects, by its path.
    fn at<'a>(object: &'a Json, path: &str) -> &'a Json {
        path.split('.').fold(object, |object, name| &object["properties"][name])
    }

    #[test]
    fn every_key_is_in_every_table_that_accepts_it_with_its_documentation() {
        let schema = schema();
        let pattern = |table: &Json| table["patternProperties"].as_object().unwrap().values().next().unwrap().clone();
        let camera = pattern(at(&schema, "camera"));
        let tables = [
            (Table::Root, schema.clone()),
            (Table::Defaults, at(&schema, "defaults").clone()),
            (Table::Output, pattern(at(&camera, "output"))),
            (Table::Camera, camera),
            (Table::Serve, at(&schema, "serve").clone()),
            (Table::Log, at(&schema, "log").clone()),
        ];
        let mut seen = 0;
        for key in KEYS {
            for (_, object) in tables.iter().filter(|(table, _)| table.accepts(key.scope)) {
                let found = at(object, key.path);
                let description = found["description"].as_str().unwrap_or_else(|| panic!("{} is missing", key.path));
                assert!(description.starts_with(key.doc), "{}", key.path);
                assert_eq!(found.get("default").is_some(), key.default.is_some(), "{}", key.path);
                seen += 1;
            }
        }
        assert!(seen > KEYS.len(), "shared keys stand in two tables");
    }

    #[test]
    fn no_table_takes_a_key_that_is_not_in_the_list() {
        fn closed(schema: &Json, objects: &mut usize) {
            if schema["type"] == "object" {
                *objects += 1;
                assert_eq!(schema["additionalProperties"], false, "{schema}");
            }
            match schema {
                Json::Object(fields) => fields.values().for_each(|field| closed(field, objects)),
                Json::Array(items) => items.iter().for_each(|item| closed(item, objects)),
                _ => {}
            }
        }
        let mut objects = 0;
        closed(&schema(), &mut objects);
        assert!(objects >= 10, "{objects} tables");
    }
}
