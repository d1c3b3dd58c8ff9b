//! Who may come in: the words of `connection.start` and `start-ok`. Knows no connection's state.

use amq_protocol::protocol::connection;
use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, FieldTable};

use super::broker::USER;
use super::fault::{Fault, short};
use super::table::{check_table, field, text};

/// The password of [`USER`].
const PASSWORD: &str = "guest";

/// What the listener can do, in the names that RabbitMQ gave to its extensions.
const CAPABILITIES: [&str; 7] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "per_consumer_qos",
    "authentication_failure_close",
];

/// A name and a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
}

/// The first method of every conversation.
pub(crate) fn start() -> connection::Start {
    let mut capabilities = FieldTable::default();
    for name in CAPABILITIES {
        capabilities.insert(short(name), AMQPValue::Boolean(true));
    }
    let mut server_properties = FieldTable::default();
    server_properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
    for (name, value) in [
        ("product", "passerelle embedded broker"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("information", "in memory, for trying things out: production means RabbitMQ"),
    ] {
        server_properties.insert(short(name), AMQPValue::LongString(value.into()));
    }
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US".into(),
    }
}

impl Login {
    /// Reads the answer to [`start`].
    ///
    /// # Errors
    /// 403 for a mechanism that was not offered, or an answer that does not fit it.
    pub(crate) fn parse(method: &connection::StartOk) -> Result<Self, Fault> {
        let response = method.response.as_bytes();
        let login = match method.mechanism.as_str() {
            "PLAIN" => Self::from_plain(response),
            "AMQPLAIN" => Self::from_amqplain(response),
            other => return Err(Fault::refused(format!("mechanism '{other}' was not offered: use PLAIN or AMQPLAIN"))),
        };
        login.ok_or_else(|| Fault::refused("the login cannot be read"))
    }

    /// An identity to act for, which is ignored, the user and the password, separated by NUL (RFC 4616).
    fn from_plain(response: &[u8]) -> Option<Self> {
        let mut parts = response.splitn(3, |byte| *byte == 0).skip(1).map(<[u8]>::to_vec);
        Some(Self { user: parts.next()?, password: parts.next()? })
    }

    /// A table without its length.
    fn from_amqplain(response: &[u8]) -> Option<Self> {
        let table = [&u32::try_from(response.len()).ok()?.to_be_bytes()[..], response].concat();
        check_table(&table).ok()?;
        let (_, table) = parse_field_table(&table[..]).ok()?;
        let part = |name| field(&table, name).and_then(text).map(<[u8]>::to_vec);
        Some(Self { user: part("LOGIN")?, password: part("PASSWORD")? })
    }

    /// Lets guest with password guest in, from this machine.
    ///
    /// # Errors
    /// 403 for everybody else.
    pub(crate) fn check(&self, is_local: bool) -> Result<(), Fault> {
        if self.user != USER.as_bytes() || self.password != PASSWORD.as_bytes() {
            return Err(Fault::refused(format!(
                "login was refused: the embedded broker knows user '{USER}' with password '{PASSWORD}' only"
            )));
        }
        if !is_local {
            return Err(Fault::refused(
                "login was refused: the embedded broker lets users in from its own machine only; for others use RabbitMQ",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Code;
    use super::*;
    use amq_protocol::auth::Credentials;
    use amq_protocol::uri::SASLMechanism;

    fn login(mechanism: SASLMechanism, user: &str, password: &str) -> Login {
        let response = Credentials::new(user.into(), password.into()).sasl_auth_string(mechanism);
        let mechanism = short(mechanism.name());
        Login::parse(&connection::StartOk { mechanism, response, ..Default::default() }).unwrap()
    }

    #[test]
    fn guest_comes_in_from_this_machine_by_either_mechanism() {
        for mechanism in [SASLMechanism::Plain, SASLMechanism::AMQPlain] {
            assert_eq!(login(mechanism, "guest", "guest").check(true), Ok(()));
            assert_eq!(login(mechanism, "guest", "guest").check(false).unwrap_err().code, Code::AccessRefused);
            assert!(login(mechanism, "guest", "other").check(true).unwrap_err().text.contains("'guest'"));
            assert!(login(mechanism, "root", "guest").check(true).is_err());
        }
    }

    #[test]
    fn answers_that_cannot_be_read_are_refused() {
        for (mechanism, response) in [("PLAIN", "guest"), ("AMQPLAIN", "guest"), ("EXTERNAL", ""), ("PLAIN", "\0guest")]
        {
            let method =
                connection::StartOk { mechanism: short(mechanism), response: response.into(), ..Default::default() };
            assert_eq!(Login::parse(&method).unwrap_err().code, Code::AccessRefused, "{mechanism}");
        }
    }
}
