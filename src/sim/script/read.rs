//! A script from text to faults; every mistake is noted with its place.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::action::{KnownAction, Span, Values, known_actions};
use super::{Fault, Origin, Script, Transport};
use crate::config::document::{self, Item, in_order};
use crate::config::duration::{self, DurationRange};
use crate::config::name::did_you_mean;
use crate::config::value::{Kind, Refusal, Value, type_noun};
use crate::config::{ConfigErrors, Place, Problem, SourceFile};

const ORIGINS: Kind = Kind::Words(&["play", "start"]);
const TRANSPORTS: Kind = Kind::Words(&["tcp", "udp"]);
/// Faults that only the interleaved transport has, because the RTSP connection carries everything there.
const TCP_ONLY: [&str; 3] = ["sender-reports", "delay", "bandwidth"];
const DAY: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(1);
/// The keys of every fault, in the order of the documentation.
const COMMON: [&str; 5] = ["at", "for", "repeat", "times", "do"];
/// What a hint proposes when nothing closer is known.
const EXAMPLE: &str = "write one such as\n[[fault]]\nat = \"5s\"\nfor = \"10s\"\ndo = \"stall\"";

/// Reads a script and collects everything that is wrong with it.
pub(super) fn read(file: &Arc<SourceFile>) -> Result<Script, ConfigErrors> {
    let mut problems = Vec::new();
    let table = document::parse(file, &mut problems);
    let script = table.map(|table| Reading { file, problems: &mut problems }.script(table.get_ref()));
    match script {
        Some(script) if problems.is_empty() => Ok(script),
        _ => Err(ConfigErrors::new(problems)),
    }
}

struct Reading<'a> {
    file: &'a Arc<SourceFile>,
    problems: &'a mut Vec<Problem>,
}

/// The keys that every fault may have, where they stand.
#[derive(Default)]
struct Times {
    at: Option<DurationRange>,
    lasts: Option<(DurationRange, Place)>,
    repeat: Option<(DurationRange, Place)>,
    times: Option<(u64, Place)>,
}

impl Reading<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file.clone(), span }
    }

    fn note(
        &mut self,
        span: Range<usize>,
        title: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = self.place(span);
        self.problems.push(Problem::error(title, hint).at(Some(&place), label));
    }

    fn script(&mut self, root: &DeTable<'_>) -> Script {
        let mut script = Script { origin: Origin::Play, transport: Transport::Tcp, faults: Vec::new() };
        for (key, value) in in_order(root) {
            match key.get_ref().as_ref() {
                "from" => {
                    if self.value("from", &ORIGINS, value) == Some(Value::Word("start")) {
                        script.origin = Origin::Start;
                    }
                }
                "transport" => {
                    if self.value("transport", &TRANSPORTS, value) == Some(Value::Word("udp")) {
                        script.transport = Transport::Udp;
                    }
                }
                "fault" => script.faults = self.faults(value),
                found => {
                    let hint = match did_you_mean(found, ["from", "transport", "fault"]) {
                        Some(name) => format!("did you mean `{name}`?"),
                        None => "known here: from, transport, [[fault]]".to_owned(),
                    };
                    self.note(key.span(), format!("unknown key `{found}`"), "not a key of a script", hint);
                }
            }
        }
        if script.transport == Transport::Udp {
            self.check_transport(root);
        }
        if script.faults.is_empty() && self.problems.is_empty() {
            self.problems.push(Problem::error(format!("{} has no fault", self.file.path.display()), EXAMPLE));
        }
        script
    }

    /// Datagrams pass by what stands in the RTSP connection.
    fn check_transport(&mut self, root: &DeTable<'_>) {
        let faults = root.get("fault").and_then(|faults| faults.get_ref().as_array());
        for fault in faults.into_iter().flat_map(|faults| faults.iter()) {
            let action = fault.get_ref().as_table().and_then(|fault| fault.get("do"));
            let Some((word, span)) = action.and_then(|action| Some((action.get_ref().as_str()?, action.span()))) else {
                continue;
            };
            if TCP_ONLY.contains(&word) {
                let title = format!("do = {word:?} needs the transport tcp");
                self.note(span, title, "datagrams are not delayed or rewritten", "remove it, or transport = \"udp\"");
            }
        }
    }

    fn faults(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<Fault> {
        let Some(array) = value.get_ref().as_array() else {
            let label = format!("this is {}, expected an array of tables", type_noun(value.get_ref()));
            self.note(value.span(), "fault has the wrong type", label, EXAMPLE);
            return Vec::new();
        };
        array.iter().filter_map(|element| self.fault(element)).collect()
    }

    fn fault(&mut self, element: &Spanned<DeValue<'_>>) -> Option<Fault> {
        let Some(table) = element.get_ref().as_table() else {
            let label = format!("this is {}, expected a table", type_noun(element.get_ref()));
            self.note(element.span(), "a fault has the wrong type", label, EXAMPLE);
            return None;
        };
        let known = self.action(table, element.span());
        let (mut times, mut values) = (Times::default(), Values::default());
        for item in in_order(table) {
            self.key(known, &mut times, &mut values, item);
        }
        let known = known?;
        for parameter in known.parameters.iter().filter(|parameter| !table.contains_key(parameter.name)) {
            let default = DeValue::parse(parameter.default).expect("defaults are TOML, a test says");
            let value = parameter.kind.parse(parameter.name, default.get_ref());
            values.0.insert(parameter.name, value.expect("defaults are of their kind, a test says"));
        }
        self.check_times(known, &times);
        // With a mistake in it, which is noted, nothing is made of the fault.
        let whole = known.parameters.iter().all(|parameter| values.0.contains_key(parameter.name));
        whole.then(|| Fault {
            at: times.at.unwrap_or(DurationRange { first: Duration::ZERO, max: Duration::ZERO }),
            lasts: times.lasts.map(|(lasts, _)| lasts),
            repeat: times.repeat.map(|(repeat, _)| repeat),
            times: times.times.map(|(times, _)| times),
            action: (known.make)(&values),
        })
    }

    /// The action of a fault, by its `do`.
    fn action(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Option<&'static KnownAction> {
        let words: Vec<&str> = known_actions().iter().map(|known| known.word).collect();
        let all = format!("write do = one of {}", words.join(", "));
        let Some((_, value)) = in_order(table).into_iter().find(|(key, _)| key.get_ref() == "do") else {
            self.note(span, "a fault without `do`", "nothing says what happens", all);
            return None;
        };
        let Some(word) = value.get_ref().as_str() else {
            let label = format!("this is {}, expected a string", type_noun(value.get_ref()));
            self.note(value.span(), "do has the wrong type", label, all);
            return None;
        };
        let found = known_actions().iter().find(|known| known.word == word);
        if found.is_none() {
            let hint = did_you_mean(word, words).map_or(all, |word| format!("did you mean \"{word}\"?"));
            self.note(value.span(), format!("do = {word:?} is not known"), "not a fault of this camera", hint);
        }
        found
    }

    fn key(&mut self, known: Option<&'static KnownAction>, times: &mut Times, values: &mut Values, item: Item<'_, '_>) {
        let (key, value) = item;
        let name = key.get_ref().as_ref();
        let place = self.place(value.span());
        match name {
            "do" => {}
            "at" => times.at = self.range("at", Duration::ZERO, value),
            "for" => times.lasts = self.range("for", SHORTEST, value).map(|range| (range, place)),
            "repeat" => times.repeat = self.range("repeat", SHORTEST, value).map(|range| (range, place)),
            "times" => {
                let kind = Kind::Integer { min: 1, max: 1_000_000 };
                if let Some(Value::Integer(number)) = self.value("times", &kind, value) {
                    times.times = Some((number.unsigned_abs(), place));
                }
            }
            _ => {
                // Which keys an unknown action has is unknown.
                let Some(known) = known else { return };
                let Some(parameter) = known.parameters.iter().find(|parameter| parameter.name == name) else {
                    self.unknown(known, key.span(), name);
                    return;
                };
                if let Some(value) = self.value(name, &parameter.kind, value) {
                    values.0.insert(parameter.name, value);
                }
            }
        }
    }

    fn unknown(&mut self, known: &KnownAction, span: Range<usize>, name: &str) {
        let own = known.parameters.iter().map(|parameter| parameter.name);
        let all: Vec<&str> = COMMON.into_iter().chain(own).collect();
        let hint = match did_you_mean(name, all.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", all.join(", ")),
        };
        let label = format!("not a key of a fault with do = \"{}\"", known.word);
        self.note(span, format!("unknown key `{name}`"), label, hint);
    }

    fn range(&mut self, name: &str, shortest: Duration, value: &Spanned<DeValue<'_>>) -> Option<DurationRange> {
        let kind = Kind::DurationRange { min: shortest, max: DAY };
        let hint = "write a duration such as \"5s\", or a range from which the seed chooses, such as \"5s..8s\", \
                    of at most 1day";
        match kind.parse(name, value.get_ref()) {
            Ok(Value::DurationRange(range)) => Some(range),
            Ok(_) => None,
            Err(Refusal { title, label, .. }) => {
                self.note(value.span(), title, label, hint);
                None
            }
        }
    }

    fn value(&mut self, name: &str, kind: &Kind, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        kind.parse(name, value.get_ref())
            .map_err(|Refusal { title, label, hint }| self.note(value.span(), title, label, hint))
            .ok()
    }

    /// What is right by itself and not together.
    fn check_times(&mut self, known: &KnownAction, times: &Times) {
        let word = known.word;
        match (known.span, &times.lasts, &times.repeat) {
            (Span::Instant, Some((_, place)), _) => {
                let hint = "remove `for`; `repeat` makes it happen again";
                self.note(place.span.clone(), format!("{word} is over at once"), "it cannot last", hint);
            }
            (Span::Lasting, None, Some((_, place))) => {
                let title = format!("a {word} that repeats must end in between");
                self.note(place.span.clone(), title, "it repeats and nothing ends it", "add `for`, at most as long");
            }
            (Span::Lasting, Some((lasts, place)), Some((repeat, _))) if lasts.max > repeat.first => {
                let title = format!("for = \"{}\" may be longer than repeat = \"{}\"", shown(lasts), shown(repeat));
                let hint = "make `for` at most as long as the shortest `repeat`";
                self.note(place.span.clone(), title, "it would begin before it ends", hint);
            }
            _ => {}
        }
        if let (Some((_, place)), None) = (&times.times, &times.repeat) {
            let hint = "add `repeat`, the time from one beginning to the next";
            self.note(place.span.clone(), "times without repeat", "how far apart is not said", hint);
        }
    }
}

/// As people write it.
fn shown(range: &DurationRange) -> String {
    if range.first == range.max { duration::format(range.first) } else { range.to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Action, Ending};
    use super::*;

    fn parse(text: &str) -> Result<Script, ConfigErrors> {
        Script::parse(&SourceFile::without_secrets(PathBuf::from("yard.toml"), text.to_owned()))
    }

    #[test]
    fn a_script_is_read_with_its_defaults() {
        let script =
            parse("[[fault]]\nat = \"5s\"\nfor = \"10s..12s\"\ndo = \"stall\"\n[[fault]]\ndo = \"cut\"\n").unwrap();
        assert_eq!((script.origin, script.faults.len()), (Origin::Play, 2));
        let (stall, cut) = (&script.faults[0], &script.faults[1]);
        assert_eq!((stall.at.first, stall.at.max), (Duration::from_secs(5), Duration::from_secs(5)));
        assert_eq!(stall.lasts.unwrap().to_string(), "10s..12s");
        assert_eq!((stall.action, stall.repeat, stall.times), (Action::Stall, None, None));
        assert_eq!((cut.at.first, cut.lasts), (Duration::ZERO, None));
        assert_eq!(cut.action, Action::Cut { by: Ending::Rst, mid_packet: false });
        let script =
            parse("from = \"start\"\nfault = [{ do = \"status\", code = 404, repeat = \"2s\", for = \"1s\" }]\n");
        assert_eq!(script.unwrap().origin, Origin::Start);
    }

    #[test]
    fn every_mistake_is_shown_at_its_place_with_what_to_do() {
        // Text, title, line and column, hint.
        let table = [
            ("form = \"play\"\n", "unknown key `form`", "1:1", "did you mean `from`?"),
            ("from = \"boot\"\n", "from = \"boot\" is not one of its words", "1:8", "write one of play, start"),
            ("[[fault]]\nat = \"5s\"\n", "a fault without `do`", "1:1", "write do = one of stall, half-open"),
            ("[[fault]]\ndo = \"stal\"\n", "do = \"stal\" is not known", "2:6", "did you mean \"stall\"?"),
            ("[[fault]]\ndo = \"stall\"\nat = 5\n", "at has the wrong type", "3:6", "write a duration such as \"5s\""),
            ("[[fault]]\ndo = \"stall\"\nuntil = \"5s\"\n", "unknown key `until`", "3:1", "known here: at, for"),
            ("[[fault]]\ndo = \"slow\"\ndelya = \"5s\"\n", "unknown key `delya`", "3:1", "did you mean `delay`?"),
            ("[[fault]]\ndo = \"loss\"\npercent = 101\n", "percent = 101 is out of range", "3:11", "1 to 100"),
            ("[[fault]]\ndo = \"cut\"\nfor = \"5s\"\n", "cut is over at once", "3:7", "remove `for`"),
            ("[[fault]]\ndo = \"stall\"\nrepeat = \"5s\"\n", "a stall that repeats must end", "3:10", "add `for`"),
            (
                "[[fault]]\ndo = \"stall\"\nfor = \"6s\"\nrepeat = \"5s\"\n",
                "for = \"6s\" may be longer than repeat",
                "3:7",
                "at most as long",
            ),
            ("[[fault]]\ndo = \"cut\"\ntimes = 3\n", "times without repeat", "3:9", "add `repeat`"),
            ("[[fault]]\nat = \n", "this is not TOML", "2:", "must be TOML"),
            ("transport = \"http\"\n", "transport = \"http\" is not one of its words", "1:13", "write one of tcp, udp"),
            (
                "transport = \"udp\"\n[[fault]]\ndo = \"delay\"\n",
                "do = \"delay\" needs the transport tcp",
                "3:6",
                "remove it",
            ),
            ("fault = 3\n", "fault has the wrong type", "1:9", "[[fault]]"),
        ];
        for (text, title, place, hint) in table {
            let said = parse(text).expect_err(text).to_string();
            for part in [title, &format!("yard.toml:{place}"), hint] {
                assert!(said.contains(part), "no {part:?} for {text:?} in\n{said}");
            }
        }
        let said = parse("# nothing\n").unwrap_err().to_string();
        assert!(said.contains("yard.toml has no fault") && said.contains("do = \"stall\""), "{said}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let said =
            parse("[[fault]]\ndo = \"stall\"\nat = \"x\"\nfor = 3\n[[fault]]\ndo = \"off\"\ntimes = 0\n").unwrap_err();
        assert_eq!(said.problems.len(), 4, "{said}");
    }
}
