//! One file: from text to layers of values, every mistake on the way noted with its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key, Table};
use super::name::{CameraName, NAME_RULE, did_you_mean};
use super::report::{Place, Problem, SourceFile};
use super::value::{Refusal, Value, type_noun};

/// One key that the file says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its value; `None` when it was refused, which has been noted.
    pub(super) value: Option<Value>,
    /// Where the value stands; `None` = on the command line.
    pub(super) place: Option<Place>,
}

/// What one table says.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) entries: BTreeMap<&'static str, Entry>,
    /// Tables that were opened below it (`test`), also empty ones.
    pub(super) tables: BTreeMap<&'static str, Place>,
    /// Where the table begins.
    pub(super) place: Option<Place>,
    /// Keys that nobody knows but that were probably meant to be these.
    pub(super) meant: Vec<&'static str>,
}

/// A camera as one file has it.
#[derive(Clone, Debug)]
pub(super) struct CameraTable {
    pub(super) name: CameraName,
    pub(super) layer: Layer,
    pub(super) outputs: Vec<(CameraName, Layer)>,
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) root: Layer,
    pub(super) defaults: Layer,
    pub(super) serve: Layer,
    pub(super) log: Layer,
    pub(super) cameras: Vec<CameraTable>,
}

impl Document {
    /// Reads a file; `None` when its syntax is wrong, so that nothing else can be said about it.
    pub(super) fn read(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<Self> {
        let table = parse(file, problems)?;
        let mut walk = Walk { file, problems };
        Some(walk.document(table.get_ref()))
    }
}

/// Reads the text of a file as TOML; `None` when its syntax is wrong, which is noted.
pub(crate) fn parse<'a>(file: &'a Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<Spanned<DeTable<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(file.text());
    problems.extend(errors.iter().map(|error| syntax(file, error)));
    errors.is_empty().then_some(table)
}

fn syntax(file: &Arc<SourceFile>, error: &toml::de::Error) -> Problem {
    let end = file.text().len();
    let place = Place { file: file.clone(), span: error.span().unwrap_or(end..end) };
    let hint = match error.message() {
        "duplicate key" => "remove one of the two, or merge the tables",
        _ => "the file must be TOML; its keys are checked once the syntax is right",
    };
    let title = match error.message() {
        "duplicate key" => "a key stands twice".to_owned(),
        _ => "this is not TOML".to_owned(),
    };
    Problem::error(title, hint).at(Some(&place), error.message())
}

pub(crate) type Item<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

struct Walk<'a> {
    file: &'a Arc<SourceFile>,
    problems: &'a mut Vec<Problem>,
}

/// A table being read: which one, how it is called in messages, and the path walked below it.
struct Position<'a> {
    table: Table,
    title: &'a str,
    prefix: &'a str,
}

impl Walk<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file.clone(), span }
    }

    fn document(&mut self, root: &DeTable<'_>) -> Document {
        let mut document = Document::default();
        for item in in_order(root) {
            match item.0.get_ref().as_ref() {
                "defaults" => document.defaults = self.table(Table::Defaults, "[defaults]", item),
                "serve" => document.serve = self.table(Table::Serve, "[serve]", item),
                "log" => document.log = self.table(Table::Log, "[log]", item),
                "camera" => document.cameras = self.cameras(item),
                _ => {
                    let at = Position { table: Table::Root, title: "the top of the file", prefix: "" };
                    self.key(&mut document.root, &at, item);
                }
            }
        }
        document
    }

    fn table(&mut self, table: Table, title: &str, item: Item<'_, '_>) -> Layer {
        let mut layer = Layer { place: Some(self.place(item.0.span())), ..Layer::default() };
        if let Some(found) = self.expect_table(title, item) {
            self.keys(&mut layer, &Position { table, title, prefix: "" }, found);
        }
        layer
    }

    fn expect_table<'a, 'i>(&mut self, title: &str, item: Item<'a, 'i>) -> Option<&'a DeTable<'i>> {
        let found = item.1.get_ref().as_table();
        if found.is_none() {
            let label = format!("this is {}, expected a table", type_noun(item.1.get_ref()));
            let hint = format!("write {title} on a line of its own, and its keys below");
            let problem = Problem::error(format!("{title} has the wrong type"), hint);
            self.problems.push(problem.at(Some(&self.place(item.1.span())), label));
        }
        found
    }

    fn cameras(&mut self, item: Item<'_, '_>) -> Vec<CameraTable> {
        let Some(cameras) = self.expect_table("[camera.NAME]", item) else { return Vec::new() };
        in_order(cameras).into_iter().filter_map(|item| self.camera(item)).collect()
    }

    fn camera(&mut self, item: Item<'_, '_>) -> Option<CameraTable> {
        let name = self.name("camera", item.0);
        let title = format!("[camera.{}]", item.0.get_ref());
        let mut layer = Layer { place: Some(self.place(item.0.span())), ..Layer::default() };
        let mut outputs = Vec::new();
        let at = Position { table: Table::Camera, title: &title, prefix: "" };
        for item in in_order(self.expect_table(&title, item)?) {
            match item.0.get_ref().as_ref() {
                "output" => outputs = self.outputs(&title, item),
                _ => self.key(&mut layer, &at, item),
            }
        }
        Some(CameraTable { name: name?, layer, outputs })
    }

    fn outputs(&mut self, camera: &str, item: Item<'_, '_>) -> Vec<(CameraName, Layer)> {
        let title = format!("{}.output.NAME]", camera.trim_end_matches(']'));
        let Some(outputs) = self.expect_table(&title, item) else { return Vec::new() };
        let mut found = Vec::new();
        for item in in_order(outputs) {
            let name = self.name("output", item.0);
            let layer = self.table(Table::Output, &title.replace("NAME", item.0.get_ref()), item);
            let problem = Problem::error("outputs are not supported yet", "remove this table");
            self.problems.push(problem.at(layer.place.as_ref(), "an output of its own"));
            found.extend(name.map(|name| (name, layer)));
        }
        found
    }

    fn name(&mut self, noun: &str, key: &Spanned<std::borrow::Cow<'_, str>>) -> Option<CameraName> {
        let found = key.get_ref();
        CameraName::new(found)
            .map_err(|what| {
                let title = format!("{found:?} is not a name for {} {noun}", if noun == "output" { "an" } else { "a" });
                let problem = Problem::error(title, format!("write {NAME_RULE}"));
                self.problems.push(problem.at(Some(&self.place(key.span())), what));
            })
            .ok()
    }

    fn keys(&mut self, layer: &mut Layer, at: &Position<'_>, table: &DeTable<'_>) {
        for item in in_order(table) {
            self.key(layer, at, item);
        }
    }

    fn key(&mut self, layer: &mut Layer, at: &Position<'_>, item: Item<'_, '_>) {
        let path = format!("{}{}", at.prefix, item.0.get_ref());
        if let Some(key) = keys::find(at.table, &path) {
            let entry = self.entry(key, item.1);
            layer.entries.insert(key.path, entry);
            return;
        }
        let below = format!("{path}.");
        match keys::of_table(at.table).find(|key| key.path.starts_with(&below)) {
            Some(key) => {
                layer.tables.insert(&key.path[..path.len()], self.place(item.0.span()));
                let title = if at.table == Table::Root {
                    format!("[{path}]")
                } else {
                    format!("{}.{path}]", at.title.trim_end_matches(']'))
                };
                if let Some(table) = self.expect_table(&title, item) {
                    self.keys(layer, &Position { prefix: &below, ..*at }, table);
                } else {
                    layer.meant.push(key.path);
                }
            }
            None => self.unknown(layer, at, &path, item.0),
        }
    }

    fn entry(&mut self, key: &Key, found: &Spanned<DeValue<'_>>) -> Entry {
        let place = self.place(found.span());
        let value = match key.kind.parse(key.path, found.get_ref()) {
            Ok(value) => Some(value),
            Err(Refusal { title, label, hint }) => {
                self.problems.push(Problem::error(title, hint).at(Some(&place), label));
                None
            }
        };
        if let Some(value) = &value
            && let Some(hint) = key.not_yet(value)
        {
            let title = format!("{} = {value} is not supported yet", key.path);
            self.problems.push(Problem::error(title, hint).at(Some(&place), "not in this version"));
        }
        Entry { value, place: Some(place) }
    }

    fn unknown(&mut self, layer: &mut Layer, at: &Position<'_>, path: &str, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let found = key.get_ref().as_ref();
        let hint = suggestion(at, path, found).unwrap_or_else(|| {
            let mut known = siblings(at);
            known.dedup();
            format!("known here: {}", known.join(", "))
        });
        layer.meant.extend(keys::of_table(at.table).map(|key| key.path).find(|known| {
            did_you_mean(path, [*known]).is_some() || did_you_mean(path, known.split('.').take(1)).is_some()
        }));
        let problem = Problem::error(format!("unknown key `{path}`"), hint);
        self.problems.push(problem.at(Some(&self.place(key.span())), format!("not a key of {}", at.title)));
    }
}

/// The keys of a table in the order of the file.
pub(crate) fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Item<'a, 'i>> {
    let mut items: Vec<Item<'a, 'i>> = table.iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    items
}

/// The names that may stand where an unknown one stands.
fn siblings(at: &Position<'_>) -> Vec<&'static str> {
    let below = keys::of_table(at.table).filter_map(|key| key.path.strip_prefix(at.prefix));
    let tables: &[&str] = match at.table {
        Table::Root => &["defaults", "camera", "serve", "log"],
        Table::Camera if at.prefix.is_empty() => &["output"],
        _ => &[],
    };
    below.filter_map(|path| path.split('.').next()).chain(tables.iter().copied()).collect()
}

/// What an unknown key was probably meant to be: a sibling, a key of a neighbouring table, a key of another table.
fn suggestion(at: &Position<'_>, path: &str, found: &str) -> Option<String> {
    if let Some(name) = did_you_mean(found, siblings(at)) {
        return Some(format!("did you mean `{}{name}`?", at.prefix));
    }
    if let Some(key) = keys::of_table(at.table).find(|key| key.name() == found && key.path != path) {
        return Some(format!("did you mean `{}`?", key.path));
    }
    let key = KEYS.iter().find(|key| key.path == path || key.path.split('.').next() == Some(path))?;
    let home = match key.scope {
        keys::Scope::Root => "at the top of the file",
        keys::Scope::Shared => "in [defaults] or in a camera",
        keys::Scope::Camera => "in [camera.NAME]",
        keys::Scope::Output => "in [camera.NAME.output.NAME]",
        keys::Scope::Serve => "in [serve]",
        keys::Scope::Log => "in [log]",
    };
    Some(format!("`{path}` belongs {home}"))
}
