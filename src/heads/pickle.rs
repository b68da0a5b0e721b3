//! Which tensors a PyTorch checkpoint holds: just enough of Python's pickle to find a state dictionary in it. Nothing is
//! ever executed, an unknown instruction is refused, and memory is bounded by a multiple of the file's size. candle's reader
//! panics on damaged files.
//!
//! A checkpoint is a zip archive of `{name}/data.pkl`, which describes the tensors, and `{name}/data/{key}`, their
//! storages.

use std::collections::HashMap;
use std::rc::Rc;

/// A tensor as the pickle describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// PyTorch's name of the type, such as `HalfStorage`.
    pub kind: String,
    /// The file of its storage.
    pub key: String,
    /// Where in the storage it begins, in numbers.
    pub offset: usize,
    /// Its sizes, the row length last.
    pub shape: Vec<usize>,
}

/// Every tensor that is a value of some dictionary under a string.
pub fn tensors(pickle: &[u8]) -> Result<HashMap<String, Stored>, String> {
    let room = pickle.len().saturating_mul(COPIES).saturating_add(A_LITTLE);
    let (memo, found) = (HashMap::new(), HashMap::new());
    let mut machine = Machine { rest: pickle, stack: Vec::new(), marks: Vec::new(), memo, found, room };
    while machine.step()? {}
    Ok(machine.found)
}

impl Stored {
    /// Its bytes in memory, beside what every one has.
    fn size(&self) -> usize {
        self.kind.len() + self.key.len() + self.shape.len() * size_of::<usize>()
    }
}

/// What may stand on the stack. Everything that is of no use here is `Other`.
#[derive(Clone, Debug)]
enum Value {
    Other,
    Number(i64),
    Text(Rc<str>),
    /// A class or function, by its full name.
    Global(Rc<str>),
    Tuple(Rc<[Value]>, u8),
    Storage {
        kind: Rc<str>,
        key: Rc<str>,
    },
    Tensor(Rc<Stored>),
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    found: HashMap<String, Stored>,
    /// Bytes that may still be copied: few of them make copies of what is remembered.
    room: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; whether there are more.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.array()?;
        match code {
            0x80 => drop(self.take(1)?), // protocol
            0x95 => drop(self.take(8)?), // frame
            b'(' => self.marks.push(self.stack.len()),
            b'.' => return Ok(false),
            b'0' => drop(self.pop()?),
            b'N' | 0x88 | 0x89 | b'}' | b']' => self.stack.push(Value::Other),
            b')' => self.tuple(Vec::new())?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.tuple(items)?;
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let start = self.stack.len().checked_sub(n).ok_or(EMPTY)?;
                let items = self.stack.split_off(start);
                self.tuple(items)?;
            }
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => self.number(4)?,
            0x8a => {
                let [n] = self.array()?;
                self.number(usize::from(n))?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Other);
            }
            b'X' => {
                let n = u32::from_le_bytes(self.array()?);
                self.text(n as usize)?;
            }
            0x8c => {
                let [n] = self.array()?;
                self.text(usize::from(n))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    self.spend(module.len() + name.len())?;
                    self.stack.push(Value::Global(format!("{module}.{name}").into()));
                }
                _ => return Err("a class has no name".into()),
            },
            b'q' => {
                let [at] = self.array()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [at] = self.array()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.array()?);
                self.recall(at)?;
            }
            b'Q' => {
                let storage = storage(&self.pop()?);
                if let Value::Storage { kind, .. } = &storage {
                    self.spend(kind.len())?;
                }
                self.stack.push(storage);
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = match function {
                    Value::Global(name) => made(&name, &arguments)?,
                    _ => Value::Other,
                };
                if let Value::Tensor(tensor) = &made {
                    self.spend(tensor.size())?;
                }
                self.stack.push(made);
            }
            b'b' | b'a' => drop(self.pop()?), // the object stays
            b'e' => drop(self.pop_to_mark()?),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.entry(&key, &value)?;
            }
            b'u' => {
                for pair in self.pop_to_mark()?.chunks_exact(2) {
                    self.entry(&pair[0], &pair[1])?;
                }
            }
            _ => return Err(format!("its pickle has the unknown instruction {code:#04x}")),
        }
        Ok(true)
    }

    fn entry(&mut self, key: &Value, value: &Value) -> Result<(), String> {
        if let (Value::Text(name), Value::Tensor(tensor)) = (key, value) {
            self.spend(name.len() + tensor.size())?;
            self.found.insert(name.to_string(), Stored::clone(tensor));
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.room = self.room.checked_sub(bytes).ok_or("its pickle would unfold to many times its size")?;
        Ok(())
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<(), String> {
        let depth = |item: &Value| if let Value::Tuple(_, depth) = item { *depth } else { 0 };
        let depth = items.iter().map(depth).max().unwrap_or(0) + 1;
        // Deeper ones would exhaust the stack when dropped.
        if depth > MAX_DEPTH {
            return Err("its pickle is nested too deeply".into());
        }
        self.stack.push(Value::Tuple(items.into(), depth));
        Ok(())
    }

    fn number(&mut self, bytes: usize) -> Result<(), String> {
        let bytes = self.take(bytes)?;
        let mut wide = [0; 8];
        if bytes.len() > wide.len() {
            return Err("its pickle has a number of more than 64 bits".into());
        }
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Number(match bytes.len() {
            4 => i32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]).into(),
            _ => i64::from_le_bytes(wide), // negative ones of other lengths do not occur in sizes
        }));
        Ok(())
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.take(n)?);
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let n = self.rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        let line = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn remember(&mut self, at: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or(EMPTY)?.clone();
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), String> {
        let value = self.memo.get(&at).ok_or("its pickle refers to what is not there")?.clone();
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        Ok(self.stack.pop().ok_or(EMPTY)?)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("its pickle lacks a mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.rest.first_chunk::<N>().ok_or(CUT)?;
        self.rest = &self.rest[N..];
        Ok(*bytes)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// ("storage", class, key, device, length), as PyTorch refers to a storage.
fn storage(id: &Value) -> Value {
    match id {
        Value::Tuple(items, _) => match &items[..] {
            [Value::Text(what), Value::Global(class), Value::Text(key), ..] if &**what == "storage" => {
                let kind = class.rsplit('.').next().unwrap_or_default().into();
                Value::Storage { kind, key: key.clone() }
            }
            _ => Value::Other,
        },
        _ => Value::Other,
    }
}

/// What a call gives, for the two functions that make tensors.
fn made(function: &str, arguments: &Value) -> Result<Value, String> {
    let Value::Tuple(arguments, _) = arguments else { return Ok(Value::Other) };
    match (function, &arguments[..]) {
        ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
        (
            "torch._utils._rebuild_tensor_v2",
            [Value::Storage { kind, key }, Value::Number(offset), shape, strides, ..],
        ) => {
            let (shape, strides) = (sizes(shape)?, sizes(strides)?);
            let mut step = 1usize;
            for (&n, &stride) in shape.iter().zip(&strides).rev() {
                if n > 1 && stride != step {
                    return Err("a tensor is not stored row by row; save it with `.contiguous()`".into());
                }
                step = step.checked_mul(n).ok_or("a tensor is larger than any file")?;
            }
            let offset = usize::try_from(*offset).map_err(|_| "a tensor begins before its storage")?;
            Ok(Value::Tensor(Rc::new(Stored { kind: kind.to_string(), key: key.to_string(), offset, shape })))
        }
        _ => Ok(Value::Other),
    }
}

fn sizes(value: &Value) -> Result<Vec<usize>, String> {
    let Value::Tuple(items, _) = value else { return Err("a tensor has no shape".into()) };
    let size = |item: &Value| match item {
        Value::Number(n) => usize::try_from(*n).ok(),
        _ => None,
    };
    items.iter().map(size).collect::<Option<_>>().ok_or_else(|| "a tensor's shape is no list of sizes".into())
}

const CUT: &str = "its pickle is cut short";
const EMPTY: &str = "its pickle takes from an empty stack";
const MAX_DEPTH: u8 = 32;

/// What may be copied, in bytes of the pickle, and a little for those of a few tensors.
const COPIES: usize = 16;
const A_LITTLE: usize = 1 << 16;
