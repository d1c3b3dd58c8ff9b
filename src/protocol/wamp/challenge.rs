//! WAMP-CRA: what a client is given to sign, and whether it has signed it (WAMP, section "Challenge Response
//! Authentication"). Pure: nonce and time come in as arguments.

use std::num::NonZeroU32;

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;

use crate::model::publication::UnixMillis;
use crate::protocol::json::payload::BASE64;
use crate::protocol::json::write::push_text;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::time;
use crate::protocol::wamp::value::{Dict, Value};

/// The name of the method.
pub const METHOD: &str = "wampcra";

/// Bytes of a key made of a password; clients do not expect more than SHA-256 gives in one piece.
pub const KEY_BYTES: usize = 32;

/// What a client has to sign. Everything that depends on who it is stands in it, so that a third party can sign for it.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// Who it will be.
    pub auth_id: &'a str,
    /// In which role.
    pub auth_role: &'a str,
    /// Where we know it from.
    pub auth_provider: &'a str,
    /// Never the same again.
    pub nonce: &'a str,
    /// When it was made.
    pub made_at: UnixMillis,
    /// The session that it will have.
    pub session: Id,
}

/// How the secret was made of a password (section "Password Salting").
#[derive(Debug, Clone, Copy)]
pub struct Salting<'a> {
    /// The salt.
    pub salt: &'a str,
    /// How often.
    pub iterations: NonZeroU32,
}

impl Challenge<'_> {
    /// The text to be signed: a JSON object.
    pub fn text(&self) -> String {
        let made_at = time::format(self.made_at);
        let mut json = b"{".to_vec();
        let members = [
            ("authid", self.auth_id),
            ("authrole", self.auth_role),
            ("authmethod", METHOD),
            ("authprovider", self.auth_provider),
            ("nonce", self.nonce),
            ("timestamp", &made_at),
        ];
        for (key, value) in members {
            push_text(&mut json, key);
            json.push(b':');
            push_text(&mut json, value);
            json.push(b',');
        }
        // All of it was text.
        format!("{}\"session\":{}}}", String::from_utf8_lossy(&json), self.session)
    }
}

/// `Extra` of a `CHALLENGE` for this text.
pub fn extra(text: &str, salting: Option<&Salting<'_>>) -> Dict {
    let extra = Dict::default().with("challenge", Value::text(text));
    match salting {
        None => extra,
        Some(salting) => extra
            .with("salt", Value::text(salting.salt))
            .with("keylen", Value::from(KEY_BYTES as u64))
            .with("iterations", Value::from(u64::from(salting.iterations.get()))),
    }
}

/// The secret that a client makes of its password, and that a server keeps in place of it: the key in base64, because that
/// text is what clients sign with.
pub fn salted_secret(password: &str, salting: &Salting<'_>) -> String {
    let mut key = [0; KEY_BYTES];
    let salt = salting.salt.as_bytes();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, salting.iterations, salt, password.as_bytes(), &mut key);
    BASE64.encode(key)
}

/// The signature of a text.
pub fn signature(secret: &str, text: &str) -> String {
    BASE64.encode(hmac::sign(&key(secret), text.as_bytes()))
}

/// Whether it is the signature of the text, decided in the same time whatever it is.
pub fn is_signed(secret: &str, text: &str, signature: &str) -> bool {
    let signature = BASE64.decode(signature);
    signature.is_ok_and(|signature| hmac::verify(&key(secret), text.as_bytes(), &signature).is_ok())
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: Challenge<'_> = Challenge {
        auth_id: "peter",
        auth_role: "user",
        auth_provider: "user\"db",
        nonce: "LHRTC9zeOIrt_9U3",
        made_at: 1_403_454_985_448,
        session: Id::FIRST,
    };

    #[test]
    fn the_text_is_json_with_all_that_has_to_stand_in_it() {
        let text = CHALLENGE.text();
        let expected = serde_json::json!({
            "authid": "peter",
            "authrole": "user",
            "authmethod": "wampcra",
            "authprovider": "user\"db",
            "nonce": "LHRTC9zeOIrt_9U3",
            "timestamp": "2014-06-22T16:36:25.448Z",
            "session": 1,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
    }

    /// Computed with Python's `hmac` and `hashlib`.
    #[test]
    fn signatures_and_salted_secrets_are_those_of_others() {
        let salting = Salting { salt: "salt123", iterations: NonZeroU32::new(1000).unwrap() };
        assert_eq!(signature("secret", "{\"nonce\":\"x\"}"), "Jg/rD/bSpsQrWMNg0V4AD5No21M4N764jilF34tGd5M=");
        assert_eq!(salted_secret("secret", &salting), "MDS8Yxpu4J/vkHJ8dNEgqECYsI0uRDh2oZ5eN0vYPvo=");
    }

    #[test]
    fn only_the_right_signature_of_the_right_text_counts() {
        let text = CHALLENGE.text();
        let signed = signature("secret", &text);
        assert!(is_signed("secret", &text, &signed));
        assert!(is_signed("secret", &text, signed.trim_end_matches('=')));
        assert!(!is_signed("Secret", &text, &signed));
        assert!(!is_signed("secret", &format!("{text} "), &signed));
        for wrong in ["", "no base64!", &signed[..8], &signature("secret", "")] {
            assert!(!is_signed("secret", &text, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_salted_challenge_says_how() {
        let salting = Salting { salt: "s", iterations: NonZeroU32::MIN };
        let salted = extra("t", Some(&salting));
        assert_eq!(salted.value("salt"), Some(&Value::text("s")));
        assert_eq!(salted.value("keylen"), Some(&Value::Int(32)));
        assert_eq!(salted.value("iterations"), Some(&Value::Int(1)));
        assert_eq!(extra("t", None), Dict::default().with("challenge", Value::text("t")));
    }
}
