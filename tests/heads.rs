//! Hidden states, the output matrix and heads, on a real model: each is held against what the model itself says.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use foretoken::llama::context::{Context, ContextOptions};
use foretoken::llama::heads::{Head, LlamaHeads, Weight};
use foretoken::llama::hidden::{output_matrix, Collector};
use foretoken::llama::model::{LoadOptions, Model};
use foretoken::llama::scorer::Scorer;
use foretoken::llama::threads::ThreadCount;
use foretoken_drafter::{Heads, LanguageModel, NodeId, SeqId, Token, TokenTree};

const TEXT: &str =
    "One day, a little girl named Lily found a small red ball in the garden. She wanted to show it to her \
                    mom, so she ran home as fast as she could, and her dog ran with her all the way to the door.";

fn model() -> Arc<Model> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/target.gguf");
    Model::load(&path, &LoadOptions::default()).unwrap()
}

fn scorer(model: &Arc<Model>) -> Scorer {
    let options = ContextOptions { n_ctx: 512, threads: 1, ..ContextOptions::default() };
    Scorer::new(Context::new(model.clone(), &options).unwrap())
}

/// The logits after `text`, and the hidden state that they come from.
fn last(scorer: &mut Scorer, text: &[Token]) -> (Vec<f32>, Option<Vec<f32>>) {
    let root = TokenTree::bare(*text.last().unwrap());
    let scores = scorer.score(SeqId(0), text, &root, &[NodeId::ROOT]).unwrap();
    (scores.row(0).to_vec(), scores.hidden(0).map(<[f32]>::to_vec))
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn hidden_states_times_the_output_matrix_are_the_logits() {
    let model = model();
    let text = model.tokenise(TEXT, true).unwrap();
    let matrix = output_matrix(&model).unwrap();
    let mut plain = scorer(&model);
    let mut asked = scorer(&model);
    assert!(asked.keep_hidden(true));
    let (logits, none) = last(&mut plain, &text);
    assert!(none.is_none(), "nobody asked");
    let (same, state) = last(&mut asked, &text);
    let state = state.unwrap();
    // The text was read in passes of other sizes, so the last digits differ.
    assert!(furthest(&logits, &same) < 0.02, "asking changes nothing: {}", furthest(&logits, &same));
    let product: Vec<f32> =
        matrix.chunks(state.len()).map(|row| row.iter().zip(&state).map(|(a, b)| a * b).sum()).collect();
    assert!(furthest(&logits, &product) < 0.02, "{}", furthest(&logits, &product));

    // Before the first round: the state of the token before the root. And the collector reads the same.
    let root = TokenTree::bare(text[text.len() - 1]);
    let scores = asked.score(SeqId(0), &text, &root, &[]).unwrap();
    let before = scores.hidden(0).unwrap().to_vec();
    let all = Collector::new(model.clone(), 1).unwrap().states(&text).unwrap();
    let rows: Vec<&[f32]> = all.chunks(state.len()).collect();
    assert_eq!(rows.len(), text.len());
    assert!(furthest(rows[text.len() - 1], &state) < 0.05, "{}", furthest(rows[text.len() - 1], &state));
    assert!(furthest(rows[text.len() - 2], &before) < 0.05);
    assert!(furthest(&before, &state) > 0.5, "two places differ");
}

#[test]
fn states_of_a_long_text_are_those_of_its_beginning() {
    let model = model();
    let text = model.tokenise(&TEXT.repeat(4), true).unwrap();
    assert!(text.len() > 130, "more than two passes: {}", text.len());
    let mut collector = Collector::new(model, 1).unwrap();
    let all = collector.states(&text).unwrap();
    let few = collector.states(&text[..70]).unwrap();
    assert!(furthest(&all[..few.len()], &few) < 0.05);
    assert!(collector.states(&[]).unwrap().is_empty());
    assert!(collector.states(&vec![5; collector.n_ctx() + 1]).is_err());
}

#[test]
fn ggml_evaluates_heads_as_they_are_defined() {
    let model = model();
    let text = model.tokenise(TEXT, true).unwrap();
    let mut scorer = scorer(&model);
    scorer.keep_hidden(true);
    let (logits, state) = last(&mut scorer, &text);
    let state = state.unwrap();
    let n = state.len();

    // The first head's weights are zero: h + SiLU(0) = h, so it says what the model says. The second head's are not.
    let weights: Vec<f32> = (0..n * n).map(|i| ((i * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.1).collect();
    let bias: Vec<f32> = (0..n).map(|i| (i % 5) as f32 * 0.1).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let numbers = [vec![0.0; n * n + n], weights.clone(), bias.clone()].concat();
    file.write_all(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let weight = |start: usize, rows: usize| Weight { kind: 0, columns: n, rows, offset: start * 4, len: rows * n * 4 };
    let head = |start: usize| Head { blocks: vec![(weight(start, n), weight(start + n * n, 1))], output: None };
    let heads = [head(0), head(n * n + n)];
    let open = |heads: &[Head]| {
        LlamaHeads::new(model.clone(), foretoken::map::open(file.path()).unwrap(), heads, ThreadCount::new(1))
            .map_err(|e| e.to_string())
    };
    let mut opened = open(&heads).unwrap();
    let expected: Vec<f32> = (0..n)
        .map(|i| {
            let turned: f32 = weights[i * n..(i + 1) * n].iter().zip(&state).map(|(w, h)| w * h).sum::<f32>() + bias[i];
            state[i] + turned / (1.0 + (-turned).exp())
        })
        .collect();
    let matrix = output_matrix(&model).unwrap();
    let product: Vec<f32> = matrix.chunks(n).map(|row| row.iter().zip(&expected).map(|(a, b)| a * b).sum()).collect();
    for _ in 0..2 {
        let scores = opened.evaluate(&state).unwrap();
        assert_eq!(scores.len(), 2);
        assert!(furthest(scores.row(0), &logits) < 0.02, "{}", furthest(scores.row(0), &logits));
        assert!(furthest(scores.row(1), &product) < 0.05, "{}", furthest(scores.row(1), &product));
    }
    assert!(furthest(&product, &logits) > 0.5, "the second head says something else");

    assert!(opened.evaluate(&state[1..]).is_err());
    assert!(open(&[]).is_err());
    let mut beyond = heads.clone();
    beyond[1].blocks[0].0.offset += 1 << 20;
    assert!(open(&beyond).is_err(), "outside the file");
    let mut narrow = heads;
    narrow[0].blocks[0].0.columns -= 1;
    assert!(open(&narrow).err().is_some_and(|e| e.contains("do not fit")), "of another width");
}
