//! The program as a user runs it: the built binary on free ports, its log read, its end seen.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one that a failed test leaves behind may take to say what it counted.
const MOMENT: Duration = Duration::from_secs(2);

/// A running passerelle.
pub(crate) struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Host and port of the public listener.
    pub(crate) public: String,
    /// Host and port of the admin listener.
    pub(crate) admin: String,
    /// The URL of the broker that it uses.
    pub(crate) amqp: String,
}

impl Program {
    /// Runs `serve` with these environment variables beside free ports; without an AMQP URL the embedded broker is used.
    pub(crate) fn start(amqp: Option<&str>, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_passerelle"));
        command.env_clear().arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for listener in ["SERVER", "ADMIN", "EMBEDDED"] {
            command.env(format!("PASSERELLE_{listener}__LISTEN"), "127.0.0.1:0");
        }
        match amqp {
            Some(url) => command.args(["--amqp", url]),
            None => command.arg("--embedded"),
        };
        // A client that a test leaves unread for a while answers no pings; who tests heartbeats says so.
        command.env("PASSERELLE_SERVER__HEARTBEAT", "1h");
        command.envs(environment.iter().copied());
        let mut child = command.spawn().expect("passerelle starts");
        let log = read_log(&mut child);
        let mut program =
            Self { child, log, public: String::new(), admin: String::new(), amqp: amqp.unwrap_or_default().to_owned() };
        program.public = program.said("listening on http://").trim_end_matches('/').to_owned();
        program.admin = program.said("metrics on http://").trim_end_matches("/metrics").to_owned();
        if amqp.is_none() {
            program.amqp = format!("amqp://{}", program.said("for trying out, is at amqp://"));
        }
        program
    }

    /// `sub` with these arguments, as a client of this one.
    pub(crate) fn sub(&self, arguments: &[&str]) -> Command {
        let mut sub = Command::new(env!("CARGO_BIN_EXE_passerelle"));
        sub.env_clear().args(["sub", "--url", &format!("ws://{}/ws", self.public)]).args(arguments);
        sub
    }

    /// Waits until the log has a message with these words, and returns what follows them.
    pub(crate) fn said(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(rest) = self.find(words) {
                return rest;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                // What it said last may still be on its way through the pipe.
                std::thread::sleep(Duration::from_millis(50));
                assert!(
                    self.find(words).is_some(),
                    "it ended with {status} and never said {words:?}: {:#?}",
                    self.lines()
                );
            }
            assert!(Instant::now() < deadline, "it never said {words:?}: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn find(&self, words: &str) -> Option<String> {
        self.lines().iter().find_map(|line| {
            let message = serde_json::from_str::<serde_json::Value>(line).ok()?["message"].as_str()?.to_owned();
            message.split_once(words).map(|(_, rest)| rest.to_owned())
        })
    }

    /// Everything that it logged so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until every source stands.
    pub(crate) async fn ready(&self) {
        until("passerelle is ready", async || self.get("/readyz").await.starts_with("HTTP/1.1 200")).await;
    }

    /// What the admin listener answers, head and body.
    pub(crate) async fn get(&self, path: &str) -> String {
        http_get(&self.admin, path).await
    }

    /// The value of a metric, with its labels as they are written.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// The number by which the system knows one of its threads.
    pub(crate) fn thread(&self, name: &str) -> u32 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        let mut threads = threads.map(|thread| thread.expect("a thread").path());
        let is_named =
            |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let thread = threads.find(is_named).unwrap_or_else(|| panic!("no thread {name}"));
        thread.file_name().and_then(|number| number.to_str()?.parse().ok()).expect("a number")
    }

    /// What it has counted of its sources and its clients, as far as it still answers.
    fn counted(&self) -> String {
        use std::io::{Read, Write};
        let ask = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(&self.admin)?;
            stream.set_read_timeout(Some(MOMENT))?;
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let is_telling =
            |line: &&str| line.starts_with("passerelle_") && !line.ends_with(" 0") && !line.contains("_bucket");
        match ask() {
            Ok(answer) => answer.lines().filter(is_telling).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Lets it stand still.
    pub(crate) fn freeze(&self) {
        freeze(self.child.id());
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Ends it at once, without a chance to say anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("its end");
    }

    /// How it ended, once it has.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what passerelle said: {:#?}\nwhat it counted:\n{}", self.lines(), self.counted());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -{name} {process}");
}

/// Stops a process for a while: its sockets stay, and nothing answers. Each of its threads stops when it next looks, so this
/// waits for the last of them.
pub(crate) fn freeze(process: u32) {
    signal(process, "STOP");
    let deadline = Instant::now() + PATIENCE;
    while !is_stopped(process) {
        assert!(Instant::now() < deadline, "process {process} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether all threads of a process are stopped. A thread's state follows its name, which is in brackets.
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process's threads");
    let mut states = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    states.all(|state| state.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
}

fn read_log(child: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (lines, into) = (BufReader::new(child.stderr.take().expect("its log")).lines(), log.clone());
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            into.lock().expect("the log").push(line);
        }
    });
    log
}

/// One GET over a connection of its own.
pub(crate) async fn http_get(address: &str, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// One request, as it stands, and everything that is answered until the connection closes.
pub(crate) async fn request(address: &str, text: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("the request is sent");
    let mut answer = Vec::new();
    // A peer that resets after its answer has answered.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
