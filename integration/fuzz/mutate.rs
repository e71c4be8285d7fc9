//! Mutations of JSON that stay JSON, and mostly of the right types: so the search gets past the parser, to the rules.
//! What is put somewhere comes from full.json, which has something of everything.

use serde_json::{Value, json};

/// A configuration with every field of the specification, and below `state` a container's directory.
pub(super) const FULL: &str = include_str!("full.json");

/// Steps from the top to a value.
type Path = Vec<String>;

pub(super) struct Json {
    donors: Vec<(Path, Value)>,
}

impl Json {
    /// With what is there of full.json.
    pub(super) fn new(place: &str) -> Self {
        let full: Value = serde_json::from_str(FULL).unwrap_or_else(|error| panic!("full.json: {error}"));
        let mut donors = Vec::new();
        walk(full.pointer(place).unwrap_or_else(|| panic!("full.json has no {place}")), &mut Vec::new(), &mut donors);
        Self { donors }
    }

    /// None: it is no JSON, or nothing was changed.
    pub(super) fn mutate(&self, bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        let mut random = Random(u64::from(seed) | 1 << 32);
        for _ in 0..=random.below(3) {
            self.change(&mut value, &mut random);
        }
        serde_json::to_vec(&value).ok()
    }

    fn change(&self, value: &mut Value, random: &mut Random) {
        let mut places = Vec::new();
        walk(value, &mut Vec::new(), &mut places);
        let (path, old) = random.of(&places).clone();
        let (donor_path, donor) = random.of(&self.donors).clone();
        match random.below(9) {
            // Something that belongs there.
            0..=2 => put(value, &donor_path, donor),
            // The same field of another object.
            3 => {
                let same: Vec<_> = self.donors.iter().filter(|(other, _)| other.last() == path.last()).collect();
                if !same.is_empty() {
                    put(value, &path, random.of(&same).1.clone());
                }
            }
            4 => put(value, &path, scalar(&old, random)),
            5 => remove(value, &path),
            // A further element, which begins as the others.
            6 => {
                if let Some(Value::Array(list)) = value.pointer_mut(&pointer(&path)) {
                    let more = list.first().cloned().unwrap_or(donor);
                    list.resize(list.len() + (1 << random.below(5)), more);
                }
            }
            // A further member, of a name that is none, or all too long.
            7 => {
                if let Some(Value::Object(members)) = value.pointer_mut(&pointer(&path)) {
                    members.insert(word(random), donor);
                }
            }
            _ => put(value, &path, donor),
        }
    }
}

fn walk(value: &Value, path: &mut Path, found: &mut Vec<(Path, Value)>) {
    found.push((path.clone(), value.clone()));
    let below: Vec<(String, &Value)> = match value {
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in below {
        path.push(step);
        walk(value, path, found);
        path.pop();
    }
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Puts it there, with what is missing above. A number is the place in an array, if there is one.
fn put(value: &mut Value, path: &[String], new: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = new;
        return;
    };
    match value {
        Value::Array(list) => {
            let index = step.parse().unwrap_or(list.len()).min(list.len());
            if index == list.len() {
                list.push(Value::Null);
            }
            put(&mut list[index], rest, new);
        }
        Value::Object(members) => put(members.entry(step.clone()).or_insert(Value::Null), rest, new),
        _ => {
            *value = if step.parse::<usize>().is_ok() { json!([]) } else { json!({}) };
            put(value, path, new);
        }
    }
}

fn remove(value: &mut Value, path: &[String]) {
    let Some((last, above)) = path.split_last() else { return };
    match value.pointer_mut(&pointer(above)) {
        Some(Value::Object(members)) => drop(members.remove(last)),
        Some(Value::Array(list)) => drop(last.parse().map(|index: usize| list.remove(index))),
        _ => {}
    }
}

/// Another one of its kind, at the edges; or one of another kind.
fn scalar(old: &Value, random: &mut Random) -> Value {
    match old {
        Value::Number(_) if random.below(8) > 0 => number(old, random),
        Value::String(text) if random.below(8) > 0 => text_like(text, random),
        Value::Bool(old) if random.below(8) > 0 => json!(!old),
        _ => match random.below(6) {
            0 => Value::Null,
            1 => json!([]),
            2 => json!({}),
            3 => json!(true),
            4 => json!(word(random)),
            _ => number(&json!(0), random),
        },
    }
}

fn number(old: &Value, random: &mut Random) -> Value {
    let edges = [
        json!(0),
        json!(1),
        json!(-1),
        json!(255),
        json!(65536),
        json!(i32::MAX),
        json!(i32::MIN),
        json!(u32::MAX),
        json!(u64::from(u32::MAX) + 1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
    ];
    match random.below(3) {
        0 => json!(old.as_i64().unwrap_or(0).wrapping_add(1)),
        1 => json!(old.as_i64().unwrap_or(0).wrapping_sub(1)),
        _ => random.of(&edges).clone(),
    }
}

fn text_like(old: &str, random: &mut Random) -> Value {
    let at = (0..=old.len()).filter(|at| old.is_char_boundary(*at)).nth(random.below(old.len() + 1)).unwrap_or(0);
    let (before, after) = old.split_at(at);
    json!(match random.below(6) {
        0 => format!("{before}{}{after}", word(random)),
        1 => before.to_owned(),
        2 => after.to_owned(),
        3 => format!("{old}{old}"),
        4 => old.to_uppercase(),
        _ => word(random),
    })
}

fn word(random: &mut Random) -> String {
    let words = [
        "",
        "/",
        "..",
        ".",
        "/..",
        "//",
        "a/../..",
        "\0",
        "\n",
        "\u{1b}[2J",
        "\u{85}",
        "\u{202e}",
        "=",
        ",",
        ":",
        "%",
        " ",
        "-1",
        "0",
        "1",
        "4294967295",
        "18446744073709551616",
        "0x10",
        "a",
        "é",
        "\u{fffd}",
        "@at",
        "\"",
        "\\",
        "max",
        "*",
    ];
    match random.below(24) {
        0 => "x".repeat(1 << random.below(11)),
        _ => (*random.of(&words)).to_owned(),
    }
}

struct Random(u64);

impl Random {
    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        // Xorshift*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }

    fn of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
