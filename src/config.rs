//! The configuration in two layers: [`Config`] is what was written, in a file and on the command line, [`Setup`] is what
//! it means.
//!
//! Text becomes types here and nowhere else; after [`Setup`] nobody checks again. Every message
//! names the key and the way out, and a misspelt key the nearest known one.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use foretoken_drafter::{Needs, Shape};
use serde::Deserialize;

use crate::sampler::Sampling;

/// What a run is made of, checked.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The target.
    pub target: TargetSetup,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Fixes every random choice, if given: see [`Setup::seed_for`].
    pub seed: Option<u64>,
    /// Which drafter.
    pub drafter: DrafterSetup,
    /// The tree of every round, or, if adaptive, the largest.
    pub shape: Shape,
    /// Whether to draft only as much as pays on this machine, within the shape.
    pub adaptive: bool,
    /// Folder that relative paths in the drafter's settings start from.
    pub base: PathBuf,
}

impl Setup {
    /// The seed for a run whose drafter has these needs: the one given, or else 0, unless it must be a new one.
    pub fn seed_for(&self, needs: Needs) -> u64 {
        let new = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64);
        self.seed.unwrap_or_else(|| if needs.new_seed { new() } else { 0 })
    }
}

/// Which model is the target, and how it runs.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are those of the configuration, which TargetTable documents
pub struct TargetSetup {
    pub model: PathBuf,
    pub gpu_layers: Option<u32>,
    pub device: Option<String>,
    pub context: Option<usize>,
    pub threads: Option<u32>,
    pub mmap: bool,
    pub mlock: bool,
    pub repack: bool,
    pub kv_type: KvType,
    pub flash_attention: Option<bool>,
}

/// A drafter's kind and the text of its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct DrafterSetup {
    /// As registered: `none` for plain decoding, `auto` if the configuration names none.
    pub kind: String,
    /// TOML, without the `kind` key.
    pub settings: String,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    target: Option<TargetTable>,
    #[serde(default)]
    sampling: SamplingTable,
    drafter: Option<toml::Table>,
    #[serde(default)]
    speculation: SpeculationTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    model: PathBuf,
    gpu_layers: Option<u32>,
    device: Option<String>,
    context: Option<usize>,
    threads: Option<u32>,
    mmap: Option<bool>,
    mlock: Option<bool>,
    repack: Option<bool>,
    kv_type: Option<String>,
    flash_attention: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SamplingTable {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    penalty_last_n: Option<usize>,
    seed: Option<u64>,
    grammar: Option<toml::Value>,
    json_schema: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeculationTable {
    adaptive: Option<bool>,
    depth: Option<usize>,
    width: Option<usize>,
    max_nodes: Option<usize>,
}

/// Types of the key-value cache that every backend has kernels for; others would abort llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // ggml's names
pub enum KvType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    Iq4Nl,
}

impl KvType {
    const ALL: [(&'static str, KvType); 9] = [
        ("f32", KvType::F32),
        ("f16", KvType::F16),
        ("bf16", KvType::Bf16),
        ("q8_0", KvType::Q8_0),
        ("q5_1", KvType::Q5_1),
        ("q5_0", KvType::Q5_0),
        ("q4_1", KvType::Q4_1),
        ("q4_0", KvType::Q4_0),
        ("iq4_nl", KvType::Iq4Nl),
    ];

    /// Whether values are quantised in blocks.
    pub fn is_quantised(self) -> bool {
        !matches!(self, KvType::F32 | KvType::F16 | KvType::Bf16)
    }

    /// Bytes that 32 values take.
    pub fn bytes_per_32(self) -> usize {
        match self {
            KvType::F32 => 128,
            KvType::F16 | KvType::Bf16 => 64,
            KvType::Q8_0 => 34,
            KvType::Q5_1 => 24,
            KvType::Q5_0 => 22,
            KvType::Q4_1 => 20,
            KvType::Q4_0 | KvType::Iq4Nl => 18,
        }
    }
}

/// A configuration that makes no sense. One line: the culprit and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Most threads of a model; llama.cpp dies of more than the system can start.
pub const MAX_THREADS: u32 = 512;

/// Most nodes of a tree.
pub const MAX_NODES: usize = 255;

/// A configuration being put together: a file, then whatever overrides it.
#[derive(Debug, Default)]
pub struct Config {
    table: toml::Table,
    file: Option<PathBuf>,
}

impl Config {
    /// Begin with a file.
    ///
    /// # Errors
    /// It cannot be read or is not TOML.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => ConfigError(format!("{}: not TOML, for it is not text", path.display())),
            _ => ConfigError(format!("cannot read the configuration {}: {e}", path.display())),
        })?;
        let table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError(format!("{}, line {line}: not TOML: {}", path.display(), first_line(e.message())))
        })?;
        Ok(Config { table, file: Some(path.to_owned()) })
    }

    /// Override one value, named by its dotted path.
    ///
    /// # Errors
    /// The path runs through something that is not a table.
    pub fn set(&mut self, path: &str, value: toml::Value) -> Result<(), ConfigError> {
        let mut table = &mut self.table;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value);
                return Ok(());
            }
            table = table
                .entry(part)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut()
                .ok_or_else(|| ConfigError(format!("cannot set `{path}`: `{part}` is not a table")))?;
        }
        Ok(())
    }

    /// Override from `key=value` as typed: the value is TOML, or else a string.
    ///
    /// # Errors
    /// There is no `=`, or the path makes no sense.
    pub fn set_typed(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let Some((path, text)) = assignment.split_once('=').filter(|(path, _)| path.contains('.')) else {
            return Err(ConfigError(format!("cannot read `--set {assignment}`; write table.key=value")));
        };
        let value = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
        self.set(path.trim(), value.unwrap_or_else(|| toml::Value::String(text.to_owned())))
    }

    /// Choose a drafter by kind. Settings of another kind are dropped, they would not be understood.
    pub fn set_drafter(&mut self, kind: &str) {
        let is_same = match self.table.get("drafter").map(|drafter| drafter.get("kind")) {
            Some(Some(other)) => other.as_str() == Some(kind),
            Some(None) => kind == AUTO,
            None => false,
        };
        if !is_same {
            let table = toml::Table::from_iter([("kind".to_owned(), toml::Value::String(kind.to_owned()))]);
            self.table.insert("drafter".to_owned(), toml::Value::Table(table));
        }
    }

    /// What it means.
    ///
    /// # Errors
    /// A key is unknown or missing, or a value out of range.
    pub fn setup(&self) -> Result<Setup, ConfigError> {
        let whose = match &self.file {
            Some(file) => format!("{}: ", file.display()),
            None => String::new(),
        };
        let blame = |message: String| ConfigError(format!("{whose}{message}"));
        let mut config: Written = toml::Value::Table(self.table.clone())
            .try_into()
            .map_err(|e: toml::de::Error| blame(explain(&e.to_string())))?;
        let Some(given) = &config.target else {
            return Err(blame("no target: give `[target] model = \"…\"` or `--target FILE`".to_owned()));
        };
        let base = self.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Ok(Setup {
            target: target(given, &base).map_err(blame)?,
            sampling: sampling(&config.sampling).map_err(blame)?,
            seed: config.sampling.seed,
            drafter: drafter(config.drafter.take()).map_err(blame)?,
            shape: shape(&config.speculation).map_err(blame)?,
            adaptive: is_adaptive(&config.speculation),
            base,
        })
    }
}

fn target(t: &TargetTable, base: &Path) -> Result<TargetSetup, String> {
    if t.model.as_os_str().is_empty() {
        return Err("target.model is empty; name a GGUF file".to_owned());
    }
    within("target.context", t.context, 1, 16 * 1024 * 1024)?;
    within("target.threads", t.threads, 1, MAX_THREADS)?;
    let kv_type = match &t.kv_type {
        None => KvType::F16,
        Some(name) => *KvType::ALL.iter().find(|(known, _)| known == name).map(|(_, t)| t).ok_or_else(|| {
            let known: Vec<&str> = KvType::ALL.iter().map(|(known, _)| *known).collect();
            format!("target.kv_type = \"{name}\" is not possible; take one of {}", known.join(", "))
        })?,
    };
    if kv_type.is_quantised() && t.flash_attention == Some(false) {
        return Err("a quantised target.kv_type needs target.flash_attention = true".to_owned());
    }
    Ok(TargetSetup {
        model: base.join(&t.model),
        gpu_layers: t.gpu_layers,
        device: t.device.clone(),
        context: t.context,
        threads: t.threads,
        mmap: t.mmap.unwrap_or(true),
        mlock: t.mlock.unwrap_or(false),
        repack: t.repack.unwrap_or(true),
        kv_type,
        flash_attention: t.flash_attention,
    })
}

fn sampling(t: &SamplingTable) -> Result<Sampling, String> {
    for (key, value) in [("grammar", &t.grammar), ("json_schema", &t.json_schema)] {
        if value.is_some() {
            return Err(format!("sampling.{key} is not supported yet; remove it"));
        }
    }
    // Truncation defaults are llama.cpp's, so that a temperature alone behaves as users of GGUF know it.
    let sampling = Sampling {
        temperature: t.temperature.unwrap_or(0.0),
        top_k: t.top_k.unwrap_or(40),
        top_p: t.top_p.unwrap_or(0.95),
        min_p: t.min_p.unwrap_or(0.05),
        repeat_penalty: t.repeat_penalty.unwrap_or(1.0),
        frequency_penalty: t.frequency_penalty.unwrap_or(0.0),
        presence_penalty: t.presence_penalty.unwrap_or(0.0),
        penalty_last_n: t.penalty_last_n.unwrap_or(64),
        forbidden: Vec::new(),
    };
    within("sampling.temperature", Some(sampling.temperature), 0.0, 100.0)?;
    within("sampling.top_p", Some(sampling.top_p), 0.0, 1.0)?;
    within("sampling.min_p", Some(sampling.min_p), 0.0, 1.0)?;
    within("sampling.repeat_penalty", Some(sampling.repeat_penalty), 0.01, 100.0)?;
    within("sampling.frequency_penalty", Some(sampling.frequency_penalty), -100.0, 100.0)?;
    within("sampling.presence_penalty", Some(sampling.presence_penalty), -100.0, 100.0)?;
    Ok(sampling)
}

/// The kind of drafter where none is named.
const AUTO: &str = "auto";

fn drafter(table: Option<toml::Table>) -> Result<DrafterSetup, String> {
    let Some(mut table) = table else {
        return Ok(DrafterSetup { kind: AUTO.to_owned(), settings: String::new() });
    };
    match table.remove("kind") {
        Some(toml::Value::String(kind)) => Ok(DrafterSetup { kind, settings: table.to_string() }),
        Some(_) => Err("drafter.kind must be a name in quotes, as in kind = \"ngram\"".to_owned()),
        None => Ok(DrafterSetup { kind: AUTO.to_owned(), settings: table.to_string() }),
    }
}

fn is_adaptive(t: &SpeculationTable) -> bool {
    t.adaptive.unwrap_or(true)
}

/// What is fixed must pay by itself, so it is small by default; a bound may be generous.
fn shape(t: &SpeculationTable) -> Result<Shape, String> {
    let (depth, width) = if is_adaptive(t) { (16, 4) } else { (4, 1) };
    let shape = Shape {
        max_nodes: t.max_nodes.unwrap_or(16),
        depth: t.depth.unwrap_or(depth),
        width: t.width.unwrap_or(width),
    };
    within("speculation.max_nodes", Some(shape.max_nodes), 0, MAX_NODES)?;
    within("speculation.depth", Some(shape.depth), 0, MAX_NODES)?;
    within("speculation.width", Some(shape.width), 1, MAX_NODES)?;
    Ok(shape)
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: Option<T>, least: T, most: T) -> Result<(), String> {
    match value {
        Some(value) if !(value >= least && value <= most) => {
            Err(format!("{key} = {value} is out of range; it goes from {least} to {most}"))
        }
        _ => Ok(()),
    }
}

/// One line from toml's report on a wrong key or value: the key, what is wrong, and the nearest known name.
pub fn explain(report: &str) -> String {
    let (key, message) = key_and_message(report);
    if let Some(name) = message.strip_prefix("missing field ") {
        let table = key.map_or(String::new(), |key| format!(" in `{key}`"));
        return format!("{name} is missing{table}");
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let names: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        if let Some((unknown, known)) = names.split_first() {
            return format!("unknown key `{unknown}`{}", did_you_mean(unknown, known));
        }
    }
    let message = for_people(message);
    match key {
        Some(key) => format!("{key}: {message}"),
        None => message,
    }
}

/// toml reports on a table with the message and "in `key`", on a text with the place, the line itself, a mark below it
/// and the message.
fn key_and_message(report: &str) -> (Option<&str>, &str) {
    let lines: Vec<&str> = report.lines().collect();
    match lines[..] {
        [place, _, line, _, message, ..] if place.starts_with("TOML parse error") => {
            let key = line.split_once('|').and_then(|(_, line)| line.split_once('=')).map(|(key, _)| key.trim());
            (key.filter(|_| message.starts_with("invalid ")), message)
        }
        [message, ..] => {
            let key = lines.iter().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
            (key, message)
        }
        [] => (None, ""),
    }
}

/// Rust's names of types mean nothing to a user.
fn for_people(message: &str) -> String {
    let Some((what, expected)) = message.split_once(", expected ") else { return message.to_owned() };
    let expected = match expected {
        "usize" | "u64" => "a whole number from 0",
        "u32" => "a whole number from 0 to 4294967295",
        "f32" | "f64" => "a number",
        "path string" => "a path in quotes",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{what}, expected {expected}")
}

/// "; did you mean `x`?" with the nearest of `known`, or all of them if none is near.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    let distance = |other: &&&str| strsim::damerau_levenshtein(name, other);
    match known.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 1 + name.len() / 3 => format!("; did you mean `{nearest}`?"),
        Some(_) => format!("; known are {}", known.join(", ")),
        None => String::new(),
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(text: &str) -> Result<Setup, String> {
        let config = Config { table: text.parse().unwrap(), file: None };
        config.setup().map_err(|e| e.to_string())
    }

    #[test]
    fn defaults() {
        let s = setup("[target]\nmodel = 'a.gguf'").unwrap();
        assert_eq!(s.drafter.kind, "auto");
        assert_eq!((s.adaptive, s.shape), (true, Shape { max_nodes: 16, depth: 16, width: 4 }));
        let s = setup("[target]\nmodel = 'a.gguf'\n[speculation]\nadaptive = false").unwrap();
        assert_eq!((s.adaptive, s.shape), (false, Shape { max_nodes: 16, depth: 4, width: 1 }));
        assert_eq!((s.sampling.temperature, s.sampling.top_k), (0.0, 40));
    }

    #[test]
    fn wrong_input_names_the_culprit_and_the_way_out() {
        let cases = [
            ("", "no target"),
            ("[target]\nmodel = ''", "target.model is empty; name a GGUF file"),
            ("[target]\nmodle = 'a'", "unknown key `modle`; did you mean `model`?"),
            ("[taget]\nmodel = 'a'", "unknown key `taget`; did you mean `target`?"),
            ("[target]\nthreads = 1", "`model` is missing in `target`"),
            ("[target]\nmodel='a'\n[samplin]\nseed=1", "unknown key `samplin`; did you mean `sampling`?"),
            ("[target]\nmodel='a'\ncontext = 0", "target.context = 0 is out of range; it goes from 1"),
            (
                "[target]\nmodel='a'\ncontext = -4",
                "target.context: invalid value: integer `-4`, expected a whole number",
            ),
            ("[target]\nmodel='a'\nmmap = 1", "target.mmap: invalid type: integer `1`, expected true or false"),
            ("[target]\nmodel='a'\nkv_type = 'iq2_xs'", "target.kv_type = \"iq2_xs\" is not possible"),
            ("[target]\nmodel='a'\n[sampling]\ntemperature = -1.0", "sampling.temperature = -1 is out of range"),
            ("[target]\nmodel='a'\n[sampling]\ntemperature = nan", "sampling.temperature = NaN is out of range"),
            ("[target]\nmodel='a'\n[sampling]\ngrammar = 'x'", "sampling.grammar is not supported yet"),
            ("[target]\nmodel='a'\n[drafter]\nkind = 7", "drafter.kind must be a name in quotes"),
            ("[target]\nmodel='a'\n[speculation]\nadaptive = 1", "speculation.adaptive: invalid type: integer `1`"),
            ("[target]\nmodel='a'\n[speculation]\nmax_nodes = 9999", "it goes from 0 to 255"),
        ];
        for (text, expected) in cases {
            let error = setup(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_drafter_may_pass_on_what_toml_reports() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            #[allow(dead_code)]
            depth: usize,
        }
        for (text, expected) in [
            ("depth = -1", "depth: invalid value: integer `-1`, expected a whole number from 0"),
            ("dept = 1", "unknown key `dept`; did you mean `depth`?"),
            ("", "`depth` is missing"),
        ] {
            assert_eq!(explain(&toml::from_str::<Settings>(text).unwrap_err().to_string()), expected);
        }
    }

    #[test]
    fn a_run_that_must_have_a_new_seed_has_one_unless_it_is_set() {
        let (none, new) = (Needs::default(), Needs { new_seed: true, ..Needs::default() });
        let unset = setup("[target]\nmodel = 'a.gguf'").unwrap();
        let set = setup("[target]\nmodel = 'a.gguf'\n[sampling]\nseed = 5").unwrap();
        assert_eq!((unset.seed_for(none), set.seed_for(none), set.seed_for(new)), (0, 5, 5));
        let first = unset.seed_for(new);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(first != 0 && unset.seed_for(new) != first);
    }

    #[test]
    fn a_drafter_without_a_kind_is_automatic() {
        let of = |text: &str| setup(&format!("[target]\nmodel = 'a.gguf'\n{text}")).unwrap().drafter;
        assert_eq!(of(""), DrafterSetup { kind: "auto".to_owned(), settings: String::new() });
        let named = of("[drafter]\nmodel = 'b.gguf'");
        assert_eq!((named.kind.as_str(), named.settings.trim()), ("auto", "model = \"b.gguf\""));
        let mut config = Config { table: "[drafter]\nmodel = 'b.gguf'".parse().unwrap(), file: None };
        let before = config.table.clone();
        config.set_drafter("auto");
        assert_eq!(config.table, before, "that is its kind");
        config.set_drafter("ngram");
        assert_eq!(config.table, "[drafter]\nkind = 'ngram'".parse().unwrap(), "its settings are not this one's");
    }

    #[test]
    fn overrides_win_and_values_are_read_as_toml_or_text() {
        let mut config = Config { table: "[target]\nmodel = 'a.gguf'".parse().unwrap(), file: None };
        config.set_typed("speculation.depth=7").unwrap();
        config.set_typed("target.model=b.gguf").unwrap();
        config.set_drafter("model");
        config.set_typed("drafter.model=d.gguf").unwrap();
        let s = config.setup().unwrap();
        assert_eq!((s.shape.depth, s.target.model.to_str()), (7, Some("b.gguf")));
        assert_eq!((s.drafter.kind.as_str(), s.drafter.settings.trim()), ("model", "model = \"d.gguf\""));
        assert!(config.set_typed("depth").is_err());
    }
}
