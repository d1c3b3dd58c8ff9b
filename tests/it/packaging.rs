//! What ships beside the program fits it and itself: every path, port, image, variable and volume of the compose file,
//! the image's recipe, and what Prometheus and Grafana are told.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use passerelle::config::{Inputs, Settings};
use serde_json::Value;

use crate::repository::{files_named, root, text, toml, yaml};

const COMPOSE: &str = "docker-compose.yml";
const DOCKERFILE: &str = "packaging/Dockerfile";

/// Ports that the others listen on by their own defaults, by service.
const FOREIGN_PORTS: [(&str, &[u16]); 3] =
    [("rabbitmq", &[5672, 15672, 15692]), ("prometheus", &[9090]), ("grafana", &[3000])];

#[test]
fn images_are_pinned_to_a_version() {
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} names no image"));
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let version = tag.trim_start_matches('v');
        let parts = version.split('-').next().unwrap_or_default().split('.');
        let numbers = parts.filter(|part| part.parse::<u16>().is_ok()).count();
        assert_eq!(numbers, 3, "{image} is not pinned to one version");
    }
    assert_eq!(services()["passerelle"]["image"], format!("passerelle:{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_mounted_exists() {
    let compose = yaml(COMPOSE);
    let mut used = BTreeSet::new();
    for (name, service) in services() {
        for volume in texts(&service["volumes"]) {
            let (from, _) = volume.split_once(':').unwrap_or_else(|| panic!("{name}: {volume} has no place"));
            if from.starts_with("./") {
                assert!(root().join(from).exists(), "{name} mounts {from}, which does not exist");
                assert!(volume.ends_with(":ro"), "{name} may write to {from}");
            } else {
                used.insert(from.to_owned());
            }
        }
    }
    let declared: BTreeSet<String> = keys(&compose["volumes"]);
    assert_eq!(used, declared, "volumes used, volumes declared");
}

#[test]
fn ports_are_open_to_this_machine_only_and_lead_to_a_listener() {
    for (name, service) in services() {
        for port in texts(&service["ports"]) {
            let parts: Vec<&str> = port.split(':').collect();
            let ["127.0.0.1", _, inside] = parts[..] else {
                panic!("{name}: {port} is not of the form 127.0.0.1:PORT:PORT")
            };
            let inside: u16 = inside.parse().expect("a port is a number");
            assert!(listens(&name, inside), "{name} does not listen on {inside}");
        }
    }
}

#[test]
fn passerelle_finds_its_file_its_broker_and_its_time_to_stop() {
    let services = services();
    let passerelle = &services["passerelle"];
    let file = command_of(&dockerfile())
        .windows(2)
        .find(|pair| pair[0] == "--config")
        .map(|pair| pair[1].clone())
        .expect("the image's command names its file");
    assert!(texts(&passerelle["volumes"]).contains(&format!("./config/compose.toml:{file}:ro")));

    let broker = &services["rabbitmq"]["environment"];
    let (user, password) = (broker["RABBITMQ_DEFAULT_USER"].as_str(), broker["RABBITMQ_DEFAULT_PASS"].as_str());
    let url = format!("amqp://{}:{}@rabbitmq:5672/%2f", user.expect("a user"), password.expect("a password"));
    assert_eq!(passerelle["environment"]["PASSERELLE_AMQP__URL"], url);

    let grace: u64 = passerelle["stop_grace_period"]
        .as_str()
        .and_then(|text| text.strip_suffix('s'))
        .map(str::parse)
        .expect("a number of seconds")
        .expect("a number");
    let drain = Settings::default().server.drain.as_secs();
    assert!(grace > drain, "docker kills after {grace} s what drains for {drain} s");
    let files = passerelle["ulimits"]["nofile"].as_u64().expect("a limit of open files");
    let connections = Settings::default().server.connections_max as u64;
    assert!(files > connections, "{files} open files are too few for {connections} connections");
}

#[test]
fn every_key_and_variable_is_one_that_passerelle_knows() {
    let environment = services()["passerelle"]["environment"].as_object().expect("variables").clone();
    let environment =
        environment.iter().map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()));
    settles("config/compose.toml", environment.collect());
    settles("packaging/passerelle.toml", vec![("AMQP_URL".into(), "amqp://guest:guest@broker".into())]);
}

#[test]
fn containers_listen_beyond_themselves() {
    for file in ["config/compose.toml", "packaging/passerelle.toml"] {
        let table = toml(file);
        for section in ["server", "admin"] {
            let listen = listen_of(&table, section);
            assert!(listen.ip().is_unspecified(), "{file}: {section}.listen = {listen} is not reached from outside");
        }
    }
    let auth = &toml("config/compose.toml")["auth"];
    assert_eq!(auth["anonymous"].as_bool(), Some(true), "compose says who may come in");
    assert!(toml("packaging/passerelle.toml").get("auth").is_none(), "the bare image lets nobody in");
}

#[test]
fn rabbitmq_has_the_plugins_that_the_others_rely_on() {
    let plugins = text("config/rabbitmq/enabled_plugins");
    let list = plugins.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix("].")).expect("an Erlang list");
    let plugins: Vec<&str> = list.split(',').map(str::trim).collect();
    for plugin in ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_event_exchange"] {
        assert!(plugins.contains(&plugin), "{plugin} is not enabled");
    }
    let sources = &toml("config/compose.toml")["source"];
    assert_eq!(sources["rabbitmq"]["exchange"].as_str(), Some("amq.rabbitmq.event"));
}

#[test]
fn prometheus_scrapes_listeners_that_exist() {
    let config = yaml("config/prometheus.yml");
    let mounts = texts(&services()["prometheus"]["volumes"]).join("\n");
    for rules in texts(&config["rule_files"]) {
        assert!(mounts.contains(&format!("./config/{rules}:/etc/prometheus/{rules}:ro")), "{rules} is not mounted");
    }
    let mut jobs = BTreeSet::new();
    for job in config["scrape_configs"].as_array().expect("a list of jobs") {
        for target in
            job["static_configs"].as_array().into_iter().flatten().flat_map(|targets| texts(&targets["targets"]))
        {
            let (host, port) = target.split_once(':').expect("a target is HOST:PORT");
            assert!(listens(host, port.parse().expect("a port")), "nothing listens at {target}");
            jobs.insert(job["job_name"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(jobs, BTreeSet::from(["passerelle".to_owned(), "rabbitmq".to_owned()]));
}

#[test]
fn grafana_finds_prometheus_and_the_dashboard() {
    let source = &yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"][0];
    let url = source["url"].as_str().and_then(|url| url.strip_prefix("http://")).expect("an address");
    let (host, port) = url.split_once(':').expect("HOST:PORT");
    assert!(listens(host, port.parse().expect("a port")), "nothing listens at {url}");

    let grafana = &services()["grafana"];
    let folder = &yaml("grafana/provisioning/dashboards/passerelle.yml")["providers"][0]["options"]["path"];
    let folder = folder.as_str().expect("a folder");
    assert!(texts(&grafana["volumes"]).contains(&format!("./grafana/dashboards:{folder}:ro")));
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().expect("a dashboard");
    let file = home.strip_prefix(folder).expect("the home dashboard lies in the folder").trim_start_matches('/');
    let dashboard: Value = serde_json::from_str(&text(Path::new("grafana/dashboards").join(file))).expect("JSON");
    let wanted = dashboard["templating"]["list"][0]["current"]["text"].as_str();
    assert_eq!(wanted, source["name"].as_str(), "the dashboard's source of data is the one that is provisioned");
}

#[test]
fn the_image_is_built_from_what_is_there() {
    let ignored = text(".dockerignore");
    let allowed: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for source in copied() {
        assert!(root().join(&source).exists(), "{DOCKERFILE} copies {source}, which does not exist");
        assert!(allowed.contains(&source.as_str()), ".dockerignore keeps {source} from the builder");
    }
    assert!(ignored.lines().any(|line| line == "*"), "the builder gets more than it needs");
}

#[test]
fn the_image_has_every_file_that_the_sources_include() {
    let copied = copied();
    for path in files_named("src", ".rs") {
        let source = text(&path);
        let includes = ["include_str!(\"", "include_bytes!(\""].into_iter().flat_map(|call| source.split(call).skip(1));
        for included in includes.filter_map(|rest| rest.split('"').next()) {
            let file = flattened(&path.parent().expect("a file lies in a folder").join(included));
            assert!(root().join(&file).exists(), "{} includes {included}", path.display());
            let has = copied.iter().any(|folder| file.starts_with(folder));
            assert!(has, "{} includes {included}, which {DOCKERFILE} does not copy", path.display());
        }
    }
}

#[test]
fn the_image_has_every_member_of_the_workspace() {
    // Cargo reads the manifests of all of them, whichever it builds.
    let manifest = toml("Cargo.toml");
    for member in manifest["workspace"]["members"].as_array().expect("members") {
        let member = member.as_str().expect("a folder").to_owned();
        assert!(copied().contains(&member), "{DOCKERFILE} does not copy {member}");
    }
}

#[test]
fn the_image_is_built_and_run_on_what_cargo_toml_asks_for() {
    let stages: Vec<Vec<String>> = dockerfile().into_iter().filter(|words| words[0] == "FROM").collect();
    let manifest = toml("Cargo.toml");
    let rust = manifest["package"]["rust-version"].as_str().expect("a version");
    let (build, run) = (&stages[0][1], &stages[1][1]);
    let debian =
        build.strip_prefix(&format!("rust:{rust}-slim-")).expect("the builder is the Rust that Cargo.toml names");
    assert_eq!(run, &format!("debian:{debian}-slim"), "built and run on the same Debian");
}

#[test]
fn the_image_runs_as_nobody_and_says_where_it_listens() {
    let lines = dockerfile();
    let user = lines.iter().find(|words| words[0] == "USER").expect("a user");
    assert!(user[1].split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user:?} is not a number above 0");
    let exposed = lines.iter().find(|words| words[0] == "EXPOSE").expect("ports");
    let exposed: BTreeSet<u16> = exposed[1..].iter().map(|port| port.parse().expect("a port")).collect();
    let table = toml("packaging/passerelle.toml");
    assert_eq!(exposed, ["server", "admin"].map(|section| listen_of(&table, section).port()).into());
    let file = command_of(&lines).pop().expect("a file");
    let copies = lines.iter().any(|words| words[0] == "COPY" && words[1..] == ["packaging/passerelle.toml", &file]);
    assert!(copies, "the image does not hold the file that its command names");
}

#[test]
fn the_health_check_of_the_image_tells_life_from_death() {
    let admin = listen_of(&toml("packaging/passerelle.toml"), "admin").port();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("an address").port();
    let check = health_check().replace(&format!("/127.0.0.1/{admin}"), &format!("/127.0.0.1/{port}"));
    assert!(check.contains(&format!("/{port}")), "the check does not ask the admin listener: {check}");

    let answering = std::thread::spawn(move || crate::prometheus::answer_once(&listener, "HTTP/1.1 200 OK\r\n\r\n{}"));
    assert!(healthy(&check), "a live node is taken for dead");
    let request = answering.join().expect("it answered");
    assert!(request.starts_with("GET /livez HTTP/1.0\r\n"), "{request}");
    assert!(!healthy(&check), "a dead node is taken for alive");
}

/// Reads a configuration as the program would.
fn settles(file: &str, environment: Vec<(String, String)>) {
    let inputs = Inputs { file: Some(root().join(file)), environment, ..Inputs::default() };
    if let Err(refused) = passerelle::config::read(&inputs) {
        panic!("{file}: {:?}", refused.mistakes);
    }
}

/// The command of HEALTHCHECK, as Docker gives it to bash.
fn health_check() -> String {
    let recipe = text(DOCKERFILE).replace("\\\n", "");
    let line = recipe.lines().find(|line| line.starts_with("HEALTHCHECK")).expect("a health check");
    let (_, command) = line.split_once(" CMD ").expect("a command");
    let words: Vec<String> = serde_json::from_str(command).expect("a command in JSON form");
    assert_eq!(words[..2], ["bash", "-c"]);
    words[2].clone()
}

fn healthy(check: &str) -> bool {
    let run = Command::new("bash").args(["-c", check]).output().expect("bash runs");
    run.status.success()
}

/// The recipe's instructions as words, continued lines joined, comments left out.
fn dockerfile() -> Vec<Vec<String>> {
    let joined = text(DOCKERFILE).replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// The words of the last CMD instruction.
fn command_of(lines: &[Vec<String>]) -> Vec<String> {
    let command = lines.iter().rfind(|words| words[0] == "CMD").expect("a command");
    serde_json::from_str(&command[1..].join(" ")).expect("a command in JSON form")
}

/// What the recipe copies from the tree.
fn copied() -> Vec<String> {
    let copies = dockerfile().into_iter().filter(|words| words[0] == "COPY" && !words[1].starts_with("--from"));
    copies.flat_map(|words| words[1..words.len() - 1].to_vec()).collect()
}

/// A path without `..`.
fn flattened(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(flat.pop()),
            other => flat.push(other),
        }
    }
    flat
}

/// Whether a service listens on a port of its container.
fn listens(service: &str, port: u16) -> bool {
    if service == "passerelle" {
        let table = toml("config/compose.toml");
        return ["server", "admin"].iter().any(|section| listen_of(&table, section).port() == port);
    }
    let known = FOREIGN_PORTS.iter().find(|(name, _)| *name == service);
    known.is_some_and(|(_, ports)| ports.contains(&port)) && services().contains_key(service)
}

fn listen_of(table: &toml::Table, section: &str) -> SocketAddr {
    table[section]["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address")
}

fn services() -> serde_json::Map<String, Value> {
    yaml(COMPOSE)["services"].as_object().expect("services").clone()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
