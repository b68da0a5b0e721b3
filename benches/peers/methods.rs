//! The list of what is compared: each method is a program and its arguments.
//!
//! llama.cpp's tools run over the settings that matter to them and with those that they come with; foretoken runs as it
//! comes, as plain decoding, and with the two drafters that llama.cpp has as well. The names here are those of the table and of `--only`.

use std::path::PathBuf;

use crate::arguments::Arguments;
use crate::table::Side;
use crate::Result;

/// One way to continue a prompt.
pub struct Method {
    pub name: String,
    pub side: Side,
    pub program: Program,
    /// Without the prompt and the seed.
    pub arguments: Vec<String>,
}

/// Which program runs.
#[derive(Clone, Copy)]
pub enum Program {
    Foretoken,
    /// llama-speculative-simple
    Simple,
    /// llama-lookup
    Lookup,
    /// llama-server
    Server,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Program::Foretoken => "foretoken",
            Program::Simple => "llama-speculative-simple",
            Program::Lookup => "llama-lookup",
            Program::Server => "llama-server",
        }
    }

    pub fn path(self, arguments: &Arguments) -> PathBuf {
        match self {
            Program::Foretoken => arguments.foretoken.clone(),
            _ => arguments.llama.join(format!("{}{}", self.name(), std::env::consts::EXE_SUFFIX)),
        }
    }
}

/// The methods that the arguments ask for. The first is llama-server's plain decoding, which texts are compared with.
pub fn all(arguments: &Arguments) -> Result<Vec<Method>> {
    let mut methods = llama_without_a_draft_model(arguments);
    methods.extend(foretoken(arguments));
    methods.extend(arguments.draft.iter().flat_map(|draft| with_a_draft_model(arguments, &draft.to_string_lossy())));
    let methods = chosen(methods, &arguments.only)?;
    for method in &methods {
        let path = method.program.path(arguments);
        if !path.is_file() {
            let path = path.display();
            return Err(format!("{} needs {path}, which is not there: benches/peers/README.md builds it", method.name));
        }
    }
    Ok(methods)
}

/// Draft lengths to try with llama.cpp's tools, and with foretoken's chains.
const LENGTHS: [usize; 7] = [1, 2, 3, 4, 6, 8, 16];
const CHAINS: [usize; 5] = [1, 2, 3, 4, 8];
/// Least probability at which a draft goes on: the tool's default, and one that stops unsure drafts.
const LEAST: [f64; 2] = [0.0, 0.75];

fn llama_without_a_draft_model(arguments: &Arguments) -> Vec<Method> {
    let server = |name: &str, side, more: &str| method(arguments, Program::Server, name, side, more);
    let lookup = |n: usize| format!("--spec-draft-n-max {n}");
    let mut methods = vec![
        server("server-plain", Side::Plain, "--spec-type none"),
        method(arguments, Program::Lookup, "lookup-plain", Side::Plain, &lookup(0)),
    ];
    methods.push(method(arguments, Program::Lookup, "lookup-default", Side::Theirs, ""));
    for n in LENGTHS {
        methods.push(method(arguments, Program::Lookup, &format!("lookup-{n}"), Side::Theirs, &lookup(n)));
    }
    for kind in ["ngram-cache", "ngram-simple", "ngram-map-k", "ngram-mod"] {
        methods.push(server(&format!("server-{kind}"), Side::Theirs, &format!("--spec-type {kind}")));
    }
    // Their defaults look for twelve tokens or more; short texts seldom repeat so many.
    for kind in ["ngram-simple", "ngram-map-k"] {
        let short = format!("--spec-type {kind} --spec-{kind}-size-n 3 --spec-{kind}-size-m 8");
        methods.push(server(&format!("server-{kind}-short"), Side::Theirs, &short));
    }
    methods
}

fn with_a_draft_model(arguments: &Arguments, draft: &str) -> Vec<Method> {
    let threads = arguments.threads;
    let theirs = |program, name: &str, more: &str| {
        let more = format!("--spec-type draft-simple {more} -td {threads} -tbd {threads}");
        let mut method = method(arguments, program, name, Side::Theirs, &more);
        method.arguments.extend(["-md".to_owned(), draft.to_owned()]);
        method
    };
    let mut methods = Vec::new();
    for (name, program) in [("simple", Program::Simple), ("server-draft", Program::Server)] {
        methods.push(theirs(program, &format!("{name}-default"), ""));
        for (n, least) in LENGTHS.iter().flat_map(|&n| LEAST.map(|least| (n, least))) {
            let name = if least > 0.0 { format!("{name}-{n}-p{least}") } else { format!("{name}-{n}") };
            methods.push(theirs(program, &name, &format!("--spec-draft-n-max {n} --spec-draft-p-min {least}")));
        }
    }
    let model = model_setting(draft);
    let adaptive = ["--drafter", "model", "--set", &model];
    methods.push(ours(arguments, "foretoken-model", &adaptive));
    methods.extend(CHAINS.map(|n| {
        let depth = format!("speculation.depth={n}");
        let chain = ["--set", "speculation.adaptive=false", "--set", &depth];
        ours(arguments, &format!("foretoken-model-{n}"), &[&adaptive[..], &chain].concat())
    }));
    methods
}

fn foretoken(arguments: &Arguments) -> Vec<Method> {
    let draft = arguments.draft.as_ref().map_or(String::new(), |draft| draft.to_string_lossy().into_owned());
    let model = model_setting(&draft);
    vec![
        ours(arguments, "foretoken-plain", &["--drafter", "none"]),
        ours(arguments, "foretoken-auto", &["--drafter", "auto", "--set", &model]),
        ours(arguments, "foretoken-ngram", &["--drafter", "ngram"]),
    ]
}

fn model_setting(draft: &str) -> String {
    format!("drafter.model={}", toml::Value::from(draft))
}

fn ours(arguments: &Arguments, name: &str, more: &[&str]) -> Method {
    let a = arguments;
    let settings = [
        format!("target.threads={}", a.threads),
        format!("target.context={}", a.context),
        "target.kv_type='f16'".to_owned(),
        "target.flash_attention=true".to_owned(),
    ];
    let mut words: Vec<String> = ["run", "--json", "--ignore-end", "--target"].map(str::to_owned).into();
    words.push(a.target.to_string_lossy().into_owned());
    words.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
    words.extend(["-n".to_owned(), a.tokens.to_string(), "--temperature".to_owned(), a.temperature.to_string()]);
    words.extend(more.iter().map(|&word| word.to_owned()));
    Method { name: name.to_owned(), side: Side::Ours, program: Program::Foretoken, arguments: words }
}

fn method(arguments: &Arguments, program: Program, name: &str, side: Side, more: &str) -> Method {
    let a = arguments;
    // A sampler that keeps the best token alone is the cheapest way to be greedy; another temperature, nothing else.
    let law = match a.temperature {
        0.0 => "--samplers top_k --top-k 1".to_owned(),
        t => format!("--samplers temperature --temp {t}"),
    };
    // Two of the tools stop once they have more than -n tokens; the server is told the number with the prompt.
    let texts = match program {
        Program::Server => String::new(),
        _ => format!("--no-escape --ignore-eos -n {}", a.tokens - 1),
    };
    let alike = format!("-c {} -t {} -tb {} -fa on -ctk f16 -ctv f16 -fit off", a.context, a.threads, a.threads);
    let mut words = vec!["-m".to_owned(), a.target.to_string_lossy().into_owned()];
    let rest = [&alike, &law, &texts, more];
    words.extend(rest.iter().flat_map(|part| part.split_whitespace()).map(str::to_owned));
    Method { name: name.to_owned(), side, program, arguments: words }
}

/// Those whose names are in `only` or go on from one of its names, after `=` that name alone; always the first.
fn chosen(methods: Vec<Method>, only: &[String]) -> Result<Vec<Method>> {
    let fits = |name: &str, wanted: &String| match wanted.strip_prefix('=') {
        Some(wanted) => name == wanted,
        None => name == wanted || name.starts_with(&format!("{wanted}-")),
    };
    if let Some(unknown) = only.iter().find(|wanted| !methods.iter().any(|m| fits(&m.name, wanted))) {
        let names: Vec<&str> = methods.iter().map(|m| m.name.as_str()).collect();
        return Err(format!("--only {unknown}: no such method; there are {}", names.join(", ")));
    }
    let is_wanted = |i: usize, name: &str| i == 0 || only.is_empty() || only.iter().any(|wanted| fits(name, wanted));
    Ok(methods.into_iter().enumerate().filter(|(i, m)| is_wanted(*i, &m.name)).map(|(_, m)| m).collect())
}
