//! llama-server for one text: start it, wait until it has loaded, ask once, end it.
//!
//! A server of its own for each text costs a load, which no number here contains, and keeps every text apart: nothing
//! is cached, and no other server waits beside the program that is being measured.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::arguments::Arguments;
use crate::methods::{Method, Program};
use crate::readings::{self, Reading};
use crate::table::Side;
use crate::Result;

/// Continue `prompt`. Greedy plain decoding also says where each token ends in the text.
pub fn run(arguments: &Arguments, method: &Method, prompt: &str, seed: usize) -> Result<Reading> {
    let mut server = Server::start(arguments, method)?;
    let answer = server.wait().and_then(|()| server.complete(arguments, method, prompt, seed));
    answer.map_err(|e| format!("{e}; its output ends:\n{}", server.log()))
}

/// What the program says of its version.
pub fn version(arguments: &Arguments) -> Result<String> {
    let output = Command::new(Program::Server.path(arguments)).arg("--version").output();
    let output = output.map_err(|e| format!("llama-server does not start: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

struct Server {
    child: Child,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(arguments: &Arguments, method: &Method) -> Result<Server> {
        let failed = |e: std::io::Error| format!("llama-server does not start: {e}");
        let log = tempfile::NamedTempFile::new().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let mut command = Command::new(method.program.path(arguments));
        command.args(&method.arguments).args(["--host", HOST, "--port", &port.to_string()]);
        command.args(["--parallel", "1", "--no-ui", "--cache-ram", "0"]);
        let out = log.reopen().map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(Server { child: command.spawn().map_err(failed)?, port, log })
    }

    /// Until the model is loaded; that takes as long as it takes, unless the program ends.
    fn wait(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return Err(format!("it ended with {status} before it was ready"));
            }
            if self.request("GET", "/health", "").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn complete(&self, arguments: &Arguments, method: &Method, prompt: &str, seed: usize) -> Result<Reading> {
        let question = serde_json::json!({
            "prompt": prompt, "n_predict": arguments.tokens, "seed": seed, "ignore_eos": true,
            "cache_prompt": false, "return_tokens": true,
        });
        let mut reading = readings::of_server(&self.post("/completion", &question)?)?;
        if arguments.temperature == 0.0 && method.side == Side::Plain {
            let tokens = reading.tokens.clone().unwrap_or_default();
            let length = |n: usize| self.text_of(&tokens[..n]).map(|text| text.len());
            reading.ends = (1..=tokens.len()).map(length).collect::<Result<_>>()?;
        }
        Ok(reading)
    }

    fn text_of(&self, tokens: &[u32]) -> Result<String> {
        let answer = self.post("/detokenize", &serde_json::json!({ "tokens": tokens }))?;
        let answer: Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        answer["content"].as_str().map(str::to_owned).ok_or("the server gave no text for tokens".to_owned())
    }

    fn post(&self, path: &str, question: &Value) -> Result<String> {
        match self.request("POST", path, &question.to_string()) {
            Ok((200, body)) => Ok(body),
            Ok((status, body)) => Err(format!("{path} was answered by status {status}: {body}")),
            Err(error) => Err(format!("{path} got no answer: {error}")),
        }
    }

    /// One request on a connection of its own: the status and the body of the answer.
    fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect((HOST, self.port))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
    }

    fn log(&self) -> String {
        let mut log = Vec::new();
        let read = File::open(self.log.path()).and_then(|mut file| file.read_to_end(&mut log));
        read.map_or_else(|e| format!("(it cannot be read: {e})"), |_| readings::tail(&String::from_utf8_lossy(&log)))
    }
}

const HOST: &str = "127.0.0.1";

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((HOST, 0))?.local_addr()?.port())
}
