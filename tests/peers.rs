//! Which methods `benches/peers` has, and what it makes of the tools' outputs, on outputs written here in their shape. No
//! tool runs.

#[allow(dead_code)] // the bench uses the rest
#[path = "../benches/peers/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "../benches/peers/methods.rs"]
mod methods;
#[path = "../benches/peers/readings.rs"]
mod readings;
#[path = "../benches/peers/table.rs"]
mod table;

use arguments::Arguments;
use foretoken::prompts::Prompt;
use methods::Method;
use readings::Reading;
use table::{Results, Run, Side};

type Result<T> = std::result::Result<T, String>;

const PRINTED: &str = "\n\n<s>Two plus two is four, and\n\nthree.\n\n\n\n";
const LOG: &str = "0.01 I loading the draft model
0.20 I encoded    5 tokens in    0.100 seconds, speed:   50.000 t/s
0.90 I decoded    8 tokens in    0.001 seconds, speed: 4000.000 t/s
0.91 I n_predict = 8
";

#[test]
fn tools_print_their_numbers_in_a_line_and_the_text_after_the_prompt() {
    let reading = readings::of_simple(PRINTED, LOG, "Two plus two").unwrap();
    assert_eq!((reading.prompt_tokens, reading.generated, reading.timed), (5, 8, 8));
    assert!((reading.seconds - 0.002).abs() < 1e-12, "from the speed, which has more digits than the seconds");
    assert_eq!((reading.text.as_str(), reading.tokens), (" is four, and\n\nthree.", None));

    let reading = readings::of_lookup(PRINTED, LOG, "Two plus two").unwrap();
    assert_eq!((reading.generated, reading.timed), (8, 7), "the first token came with the prompt");
    assert!((reading.speed() - 3500.0).abs() < 1e-9);
}

#[test]
fn a_tool_whose_last_lines_are_lost_is_no_reading() {
    let half = &LOG[..LOG.find("0.90").unwrap()];
    let error = readings::of_simple(PRINTED, half, "Two plus two").unwrap_err();
    assert_eq!(error, "it does not say how many tokens it decoded, and how fast");
    let cut = &LOG[..LOG.find("4000").unwrap()];
    assert_eq!(readings::of_lookup(PRINTED, cut, "Two plus two").unwrap_err(), error);
    let error = readings::of_lookup(PRINTED, LOG, "Three").unwrap_err();
    assert_eq!(error, "the prompt is not in what it printed");
    let frozen = LOG.replace("4000.000", "inf");
    assert!(readings::of_simple(PRINTED, &frozen, "Two plus two").unwrap_err().contains("no speed"));
    let many: String = (0..40).map(|i| format!("line {i}\n")).collect();
    assert!(readings::tail(&many).starts_with("line 25\n") && readings::tail(&many).ends_with("line 39"));
}

#[test]
fn servers_and_foretoken_print_json() {
    let answer = r#"{"content": " is four", "tokens": [7, 9, 11], "timings":
        {"prompt_n": 5, "predicted_n": 3, "predicted_ms": 50.0}}"#;
    let reading = readings::of_server(answer).unwrap();
    assert_eq!((reading.prompt_tokens, reading.generated, reading.timed), (5, 3, 2));
    assert!((reading.speed() - 40.0).abs() < 1e-9);
    assert_eq!((reading.text.as_str(), reading.tokens), (" is four", Some(vec![7, 9, 11])));

    let printed = r#"{"text": " is", "tokens": [7, 9], "stats":
        {"prompt_tokens": 5, "generated_tokens": 2, "decode_s": 0.5}}"#;
    let reading = readings::of_foretoken(printed).unwrap();
    assert_eq!((reading.timed, reading.speed()), (2, 4.0));

    let lacking = |what: &str, by: &str| printed.replace(what, by);
    let error = |text: &str| readings::of_foretoken(text).unwrap_err();
    assert_eq!(error(&lacking("decode_s", "other")), "its report has no number /stats/decode_s");
    assert_eq!(error(&lacking("\"tokens\": [7, 9]", "\"tokens\": [7, -9]")), "its report has no list /tokens");
    assert!(error(&lacking("0.5", "0")).contains("no speed"));
    assert!(error("Segmentation fault").starts_with("it printed no JSON"));
    let error = readings::of_server(&answer.replace("predicted_n", "n")).unwrap_err();
    assert_eq!(error, "its report has no count /timings/predicted_n");
}

/// A text at a speed; llama-server's plain decoding says where its three tokens end.
fn reading(speed: f64, text: &str, tokens: Option<Vec<u32>>) -> Reading {
    let ends = vec![3, 7, 10];
    let text = text.to_owned();
    Reading { prompt_tokens: 5, generated: 3, timed: 3, seconds: 3.0 / speed, text, tokens, ends }
}

/// Two kinds of text. Overall, of llama.cpp's methods, the speculating one is the best, and of its plain ones the second.
fn results() -> Results {
    let methods = [
        ("server-plain", Side::Plain, [10.0, 10.0]),
        ("lookup-plain", Side::Plain, [20.0, 20.0]),
        ("simple-4", Side::Theirs, [80.0, 20.0]),
        ("simple-8", Side::Theirs, [10.0, 80.0]),
        ("foretoken-plain", Side::Ours, [20.0, 5.0]),
        ("foretoken-auto", Side::Ours, [160.0, 40.0]),
    ];
    let prompt = |id: &str, kind: &str| Prompt { id: id.to_owned(), kind: kind.to_owned(), text: "x".to_owned() };
    let mut runs = Vec::new();
    for (method, (_, _, speeds)) in methods.iter().enumerate() {
        for (prompt, &speed) in speeds.iter().enumerate() {
            let reading = reading(speed, "onetwo!bee", (method == 0).then(|| vec![1, 2, 3]));
            runs.push(Run { method, prompt, repeat: 0, reading });
        }
    }
    let methods = methods.iter().map(|(name, side, _)| ((*name).to_owned(), *side)).collect();
    Results { methods, prompts: vec![prompt("a", "story"), prompt("b", "code")], runs, greedy: true }
}

#[test]
fn the_ratios_are_over_the_best_plain_decoding_and_the_best_setting() {
    let results = results();
    assert_eq!((results.plain(), results.best()), (1, 2));
    let close = |ratio: Option<table::Ratio>, to: f64| (ratio.unwrap().0 - to).abs() < 1e-9;
    assert!(close(results.against("foretoken-auto", results.best()), 2.0));
    assert!(close(results.against("foretoken-plain", results.plain()), 0.5), "1 and 1/4");
    assert!(results.against("foretoken-ngram", 0).is_none(), "it did not run");
    let table = results.table();
    let sentence = "foretoken-auto / llama.cpp's best setting, simple-4: 2.00";
    assert!(table.contains(&format!("{sentence}\n")), "one run alone has no interval: {table}");
    let mut twice = self::results();
    twice.runs.extend(self::results().runs.into_iter().map(|run| Run { repeat: 1, ..run }));
    assert!(twice.table().contains(&format!("{sentence} (95 %: 2.00-2.00)")), "{}", twice.table());
    assert!(table.contains("foretoken-plain / llama.cpp plain, lookup-plain: 0.50"), "{table}");
    let json = results.json();
    assert_eq!((json["best"].as_str(), json["runs"].as_array().unwrap().len()), (Some("simple-4"), 12));
    assert_eq!(json["overall"][5]["method"], "foretoken-auto");
    assert!((json["overall"][5]["ratio_to_plain"].as_f64().unwrap() - 4.0).abs() < 1e-9, "8 and 2");
    assert_eq!(json["kinds"].as_array().unwrap().len(), 12);
}

#[test]
fn greedy_texts_are_compared_token_by_token() {
    let mut results = results();
    assert!(results.runs.iter().all(|run| results.differs_at(run).is_none()));
    let with = |text: &str, tokens| Run { method: 5, prompt: 0, repeat: 0, reading: reading(1.0, text, tokens) };
    assert_eq!(results.differs_at(&with("", Some(vec![1, 5, 3]))), Some(1));
    assert_eq!(results.differs_at(&with("", Some(vec![1, 2]))), None, "as far as both go");
    assert_eq!(results.differs_at(&with("onetwo?bee", None)), Some(1), "within the second token");
    assert_eq!(results.differs_at(&with("onetwo!boo", None)), Some(2));
    assert_eq!(results.differs_at(&with("onetwo!bee and more", None)), None);
    assert_eq!(results.differs_at(&with("onetwo!b\u{fffd}", None)), None, "cut within a character");
    let other = with("twotwo", None);
    let place = results.runs.iter().position(|run| run.method == 5).unwrap();
    results.runs[place] = other;
    assert!(results.table().contains("1 of 1, the first at token 0"), "{}", results.table());
    results.greedy = false;
    assert!(results.runs.iter().all(|run| results.differs_at(run).is_none()), "sampled texts need not agree");
}

#[test]
fn prompts_read_differently_are_pointed_out() {
    let mut results = results();
    assert_eq!(results.other_prompts(), None);
    results.runs[7].reading.prompt_tokens = 6;
    let warning = results.other_prompts().unwrap();
    assert!(warning.starts_with("warning: simple-8 reads prompt b as 6 tokens, server-plain as"), "{warning}");
    assert!(results.table().contains(&warning));
}

/// The methods that `--only` keeps of those with a draft model, where every program is there.
fn only(names: &str) -> Result<Vec<Method>> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        std::fs::write(&path, "").unwrap();
        path.to_str().unwrap().to_owned()
    };
    for tool in ["llama-lookup", "llama-server", "llama-speculative-simple"] {
        file(tool);
    }
    let (llama, foretoken, model) = (folder.path().to_str().unwrap(), file("foretoken"), file("m.gguf"));
    let words = ["--llama", llama, "--foretoken", &foretoken, "--target", &model, "--draft", &model, "--prompts", "p"];
    let mut arguments = Arguments::parse(words.map(str::to_owned).into())?;
    arguments.only = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    methods::all(&arguments)
}

#[test]
fn drafts_have_the_same_lengths_on_both_sides_and_what_each_comes_with() {
    let names = |wanted: &str| -> Vec<String> { only(wanted).unwrap().into_iter().map(|m| m.name).skip(1).collect() };
    let lengths = |name: &str, lengths: &[&str]| lengths.iter().map(|n| format!("{name}{n}")).collect::<Vec<_>>();
    let lookup = ["plain", "default", "1", "2", "3", "4", "6", "8", "16"];
    assert_eq!(names("lookup"), lengths("lookup-", &lookup));
    assert_eq!(names("foretoken-model"), lengths("foretoken-model", &["", "-1", "-2", "-3", "-4", "-8"]));
    assert_eq!(names("=foretoken-model"), ["foretoken-model"]);
    assert_eq!(names("simple-1"), ["simple-1", "simple-1-p0.75"]);
    assert_eq!(names("server-draft-default,simple-default"), ["simple-default", "server-draft-default"]);
    assert!(only("=simple").is_err_and(|e| e.starts_with("--only =simple: no such method; there are server-plain, ")));
}

#[test]
fn a_method_without_a_length_leaves_it_to_its_program() {
    let has = |method: &str, word: &str| {
        let all = only(&format!("={method}")).unwrap();
        assert_eq!(all[1].name, method);
        all[1].arguments.iter().any(|argument| argument.starts_with(word))
    };
    for tool in ["lookup", "simple", "server-draft"] {
        assert!(has(&format!("{tool}-3"), "--spec-draft-n-max"));
        assert!(!has(&format!("{tool}-default"), "--spec-draft-n-max"));
        assert!(!has(&format!("{tool}-default"), "--spec-draft-p-min"));
    }
    assert!(has("foretoken-model-3", "speculation.depth=3") && has("foretoken-model-3", "speculation.adaptive=false"));
    assert!(has("foretoken-model", "drafter.model=") && !has("foretoken-model", "speculation."));
}
