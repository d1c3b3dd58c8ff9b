//! A real Prometheus as a child process, from Debian's package, and its query API over plain HTTP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::rabbit::free_ports;

/// For anything that Prometheus is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(crate) struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it on a free port with a configuration file, its data beside that file.
    pub(crate) fn start(configuration: &Path) -> Self {
        let folder = configuration.parent().expect("a file lies in a folder");
        let address = free_address();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}: install Debian's package, or run scripts/test"));
        Self { process, address }
    }

    /// Asks until `enough` is satisfied with the series of the answer.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    pub(crate) fn wait_for(&self, expression: &str, enough: impl Fn(&[Value]) -> bool) {
        wait_until(expression, || {
            let answer = self.query(expression);
            if answer.as_ref().is_ok_and(|series| enough(series)) { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }

    /// Waits until every rule was evaluated without a fault.
    pub(crate) fn wait_for_rules(&self) {
        wait_until("every rule evaluated", || {
            let answer = self.get("/api/v1/rules")?;
            let groups = answer["data"]["groups"].as_array().into_iter().flatten();
            let mut rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).peekable();
            let some = rules.peek().is_some();
            if some && rules.all(|rule| rule["health"] == "ok") { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// The series that an expression has now.
    ///
    /// # Errors
    /// What Prometheus says of an expression that it cannot evaluate, or why it cannot be asked.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = self.get(&format!("/api/v1/query?query={expression}"))?;
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => Err(answer.to_string()),
        }
    }

    /// A JSON answer of its API.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn get(&self, target: &str) -> Result<Value, String> {
        let answer = http_get(self.address, target).map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Tries until it succeeds.
///
/// # Panics
/// With the last failure, when it does not within [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(state) = attempt() {
        assert!(Instant::now() < deadline, "waited in vain for {what}: {state}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs `promtool`, which must be content.
pub(crate) fn promtool(arguments: &[&str]) {
    let run = Command::new("promtool").args(arguments).current_dir(crate::repository::root()).output();
    let run = run.unwrap_or_else(|error| panic!("promtool: {error}: install Debian's prometheus, or run scripts/test"));
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

/// A whole answer, head and body. HTTP/1.0, so that it ends with the connection and has no chunks.
pub(crate) fn http_get(address: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn free_address() -> SocketAddr {
    let [port] = free_ports();
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Answers the next connection with a text and hands back what was asked.
pub(crate) fn answer_once(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().expect("somebody asks");
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut piece).expect("the request can be read");
        assert!(length > 0, "the request ended in its head");
        request.extend_from_slice(&piece[..length]);
    }
    stream.write_all(answer.as_bytes()).expect("the answer can be sent");
    String::from_utf8_lossy(&request).into_owned()
}
