//! A RabbitMQ of our own: free ports, its own data, one scheduler, gone with the process that started it even if that dies.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use lapin::{Connection, ConnectionProperties};

use crate::program::{freeze, signal};

/// How long a start, a stop or a kill may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The node's name: its own epmd knows no other.
const NODE: &str = "passerelle@localhost";

/// The plugin that shows metrics to Prometheus.
pub(crate) const EXPORTER: &str = "rabbitmq_prometheus";

/// Ends the node and its epmd when the pipe closes, which it does with the test's process, and takes the data away.
const UNDERTAKER: &str = r#"
read -r _
[ -s "$D/pid" ] && kill -9 "$(cat "$D/pid")"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$EPMD" -port "$ERL_EPMD_PORT" -kill && break
    sleep 0.3
done
rm -rf "$D"
"#;

/// A running RabbitMQ.
pub(crate) struct Rabbit {
    directory: PathBuf,
    port: u16,
    tls_port: u16,
    exporter_port: u16,
    epmd_port: u16,
    dist_port: u16,
    server: Mutex<Option<Child>>,
    undertaker: Child,
}

impl Rabbit {
    /// One for all tests that leave it standing; names on it must be the test's own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Rabbit> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One for a test that does violence to it.
    pub(crate) fn start() -> Self {
        Self::with_plugins(&[])
    }

    /// With plugins, by their names.
    pub(crate) fn with_plugins(plugins: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("rabbit").tempdir().expect("a directory").keep();
        for part in ["home", "mnesia", "log"] {
            fs::create_dir(directory.join(part)).expect("a directory");
        }
        let [port, tls_port, exporter_port, epmd_port, dist_port] = free_ports();
        let mut configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n\
             disk_free_limit.absolute = 50MB\nhandshake_timeout = 60000\nssl_handshake_timeout = 60000\n"
        );
        // Without the plugin its keys are unknown, and the node does not start.
        if plugins.contains(&EXPORTER) {
            configuration += &format!("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {exporter_port}\n");
        }
        if write_certificates(&directory) {
            let path = |name: &str| directory.join(name).display().to_string();
            configuration += &format!(
                "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n",
                path("ca.pem"),
                path("server.pem"),
                path("server.key")
            );
        }
        fs::write(directory.join("rabbitmq.conf"), configuration).expect("the configuration");
        fs::write(directory.join("enabled_plugins"), format!("[{}].\n", plugins.join(","))).expect("the plugins");
        let undertaker = Command::new("sh")
            .args(["-c", UNDERTAKER])
            .env("D", &directory)
            .env("EPMD", "epmd")
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh");
        let rabbit = Self {
            directory,
            port,
            tls_port,
            exporter_port,
            epmd_port,
            dist_port,
            server: Mutex::new(None),
            undertaker,
        };
        rabbit.run();
        rabbit
    }

    /// Starts the node, for the first time or again on the same data.
    pub(crate) fn run(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log/out"));
        let log = log.expect("the log");
        let server = self
            .command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("rabbitmq-server");
        *self.server.lock().expect("the lock") = Some(server);
        self.wait("RabbitMQ does not listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    /// Kills the node as a power cut would.
    pub(crate) fn kill(&self) {
        self.end("KILL");
    }

    /// Stops the node as an operator would.
    pub(crate) fn stop(&self) {
        self.end("TERM");
    }

    fn end(&self, name: &str) {
        // The file goes before the process does.
        let process = self.process_id().expect("a running node");
        signal(process, name);
        if let Some(mut server) = self.server.lock().expect("the lock").take() {
            server.wait().expect("the server's end");
        }
        self.wait("RabbitMQ does not end", || !Path::new("/proc").join(process.to_string()).exists());
        let _ = fs::remove_file(self.directory.join("pid"));
    }

    /// Lets the node stand still.
    pub(crate) fn freeze(&self) {
        freeze(self.process_id().expect("a running node"));
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(self.process_id().expect("a running node"), "CONT");
    }

    /// As `guest` on the vhost `/`.
    pub(crate) fn url(&self) -> String {
        self.url_as("guest:guest", "%2f")
    }

    /// As somebody else, somewhere else.
    pub(crate) fn url_as(&self, credentials: &str, vhost: &str) -> String {
        format!("amqp://{credentials}@127.0.0.1:{}/{vhost}", self.port)
    }

    /// Over TLS; the broker demands a certificate.
    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port)
    }

    /// A file of the certificates: `ca.pem`, `client.pem`, `client.key`.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Host and port, for clients that speak bytes.
    pub(crate) fn address(&self) -> (Ipv4Addr, u16) {
        (Ipv4Addr::LOCALHOST, self.port)
    }

    /// Where Prometheus scrapes it, given the plugin.
    pub(crate) fn exporter(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.exporter_port).into()
    }

    /// Asks `rabbitmqctl`, and answers what it wrote.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let output =
                self.command("rabbitmqctl").args(["-q", "-n", NODE]).args(arguments).output().expect("rabbitmqctl");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            // It listens a moment before it says of itself that it runs, and a busy node may let the question wait too long.
            let not_yet = ["requires the 'rabbit' app to be running", "unable to perform an operation on node"];
            let is_early = not_yet.iter().any(|words| complaint.contains(words)) && Instant::now() < end;
            if !is_early {
                assert!(output.status.success(), "{arguments:?}: {text}{complaint}");
                return text;
            }
        }
    }

    fn command(&self, program: &str) -> Command {
        let file = |name: &str| self.directory.join(name);
        let mut command = Command::new(script(program));
        command
            .env("HOME", file("home"))
            .env("ERL_CRASH_DUMP", file("crash.dump"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }

    fn process_id(&self) -> io::Result<u32> {
        fs::read_to_string(self.directory.join("pid"))?.trim().parse().map_err(io::Error::other)
    }

    fn wait(&self, complaint: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            let log = || fs::read_to_string(self.directory.join("log/out")).unwrap_or_default();
            assert!(Instant::now() < end, "{complaint}:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        drop(self.undertaker.stdin.take());
        let _ = self.undertaker.wait();
        if let Some(mut server) = self.server.lock().ok().and_then(|mut server| server.take()) {
            let _ = server.wait();
        }
    }
}

/// A broker with much to do may reset a connection whose handshake takes too long, and one that starts any.
pub(crate) async fn connect(url: &str) -> Connection {
    let connecting = async {
        loop {
            match Connection::connect(url, ConnectionProperties::default()).await {
                Ok(connection) => return connection,
                Err(error) => eprintln!("connects once more: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.expect("a connection in time")
}

/// The script itself: the one on the path insists on a user of its own.
fn script(program: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let listed = Command::new("dpkg").args(["-L", "rabbitmq-server"]).output().expect("dpkg");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let server = listed.lines().find(|line| line.ends_with("lib/rabbitmq/bin/rabbitmq-server"));
        let server = PathBuf::from(server.expect("RabbitMQ is not installed: apt-get install rabbitmq-server"));
        server.parent().expect("a folder").to_owned()
    });
    folder.join(program)
}

/// Ports that nobody listens on, from below those that the system gives to connections: one of these might be taken again
/// before the node has it.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let free = || loop {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000))) {
            return listener;
        }
    };
    // All are held until all are known, so that no two are the same.
    let listeners = [(); COUNT].map(|()| free());
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// An authority, a certificate for `localhost` and one for a client; false where there is no `openssl` to make them.
fn write_certificates(directory: &Path) -> bool {
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
        made.is_ok_and(|made| made.status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let name = "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let signed = |who: &str| {
        openssl(&format!(
            "req -x509 {key} -CA ca.pem -CAkey ca.key -subj /CN=localhost {name} -keyout {who}.key -out {who}.pem"
        ))
    };
    openssl(&format!("req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"))
        && signed("server")
        && signed("client")
}
