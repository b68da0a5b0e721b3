//! Processes that append to one history, and are killed while they do, leave it whole.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foretoken_drafter::Token;
use foretoken_drafter_ngram::suffixes::Walk;
use foretoken_drafter_ngram::History;

const HISTORY: &str = "FORETOKEN_TEST_HISTORY";
const WHO: &str = "FORETOKEN_TEST_WHO";
/// Small enough that the history is compacted while it is written.
const LIMIT: usize = 2_000;

fn open(path: &Path) -> History {
    History::open(path, 1, LIMIT, 8).unwrap()
}

/// Every token is one more than the one before it.
fn text(who: Token, i: Token) -> Vec<Token> {
    let start = who * 10_000_000 + i * 100;
    (start..start + 20 + i % 50).collect()
}

/// Not a test of its own: what the processes below do. Without the variables it does nothing.
#[test]
fn append_until_killed() {
    let (Some(path), Ok(who)) = (std::env::var_os(HISTORY), std::env::var(WHO)) else { return };
    let mut history = open(Path::new(&path));
    let who = who.parse().unwrap();
    (0..100_000).for_each(|i| history.append(&text(who, i)).unwrap());
}

fn start(path: &Path, who: Token) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "append_until_killed"])
        .env(HISTORY, path)
        .env(WHO, who.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_history_outlives_its_writers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    let mut mine = open(&path);
    for round in 0..5 {
        let mut writers: Vec<Child> = (1..4).map(|who| start(&path, round * 3 + who)).collect();
        let begun = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        // This process writes as well, for as long as it takes to hear of all three, and a little longer.
        for i in 0.. {
            mine.append(&text(500 + round, i)).unwrap();
            let tokens = (0..mine.n_tokens() as u32).filter_map(|index| mine.token(index));
            seen.extend(tokens.map(|token| token / 10_000_000).filter(|who| (1..4).any(|i| *who == round * 3 + i)));
            let time = begun.elapsed();
            if seen.len() == 3 && time > Duration::from_millis(200) || time > Duration::from_secs(20) {
                break;
            }
        }
        writers.iter_mut().for_each(|writer| writer.kill().unwrap());
        writers.iter_mut().for_each(|writer| assert!(!writer.wait().unwrap().success()));
        assert_eq!(seen.len(), 3, "all wrote");

        let mut fresh = open(&path);
        assert!(fresh.n_tokens() > 100 && fresh.n_tokens() < 2 * LIMIT);
        for index in 0..fresh.n_tokens() as u32 - 1 {
            if let (Some(token), Some(next)) = (fresh.token(index), fresh.token(index + 1)) {
                assert_eq!(next, token + 1, "no text is torn or mixed with another");
            }
        }
        let last = [900 + 2 * round, 901 + 2 * round];
        fresh.append(&last).unwrap();
        assert_eq!(after(&open(&path), last[0]), [Some(last[1])], "it goes on");
    }
}

fn after(history: &History, token: Token) -> Vec<Option<Token>> {
    let mut found = Vec::new();
    history.search(&[token], 1, 100, &mut Walk::default(), &mut found);
    found.iter().map(|place| history.token(place.end + 1)).collect()
}
