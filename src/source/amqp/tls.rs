//! TLS towards the broker: which authorities are believed, and which certificate is shown.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Amqp;
use crate::source::Trouble;

/// Makes a plain connection a TLS one. With `amqp.tls_ca`, that authority alone is believed; else the system's.
///
/// # Errors
/// When a file cannot be read or used, or the handshake fails; in words.
pub(crate) async fn handshake(settings: &Amqp, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Trouble> {
    let config = client_config(settings)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Trouble(format!("'{host}' is no name that a certificate could have: correct amqp.url")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        Trouble(format!(
            "no TLS with {host}: {error}; look at amqp.tls_ca, amqp.tls_certificate and amqp.tls_key, or use amqp://"
        ))
    })
}

fn client_config(settings: &Amqp) -> Result<ClientConfig, Trouble> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble(format!("TLS cannot be used: {error}")))?
        .with_root_certificates(roots(settings.tls_ca.as_deref())?);
    match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate, "amqp.tls_certificate")?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("amqp.tls_key", key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable("amqp.tls_certificate with amqp.tls_key", certificate, &error))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(Trouble("amqp.tls_certificate and amqp.tls_key belong together: set both or neither".into())),
    }
}

fn roots(authority: Option<&Path>) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(path) => {
            for certificate in certificates(path, "amqp.tls_ca")? {
                roots.add(certificate).map_err(|error| unusable("amqp.tls_ca", path, &error))?;
            }
        }
        None => {
            // A machine may hold certificates that cannot be used; what matters is that some can.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Trouble("this machine has no certificate authorities: set amqp.tls_ca".into()));
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(key, path, &io::Error::other("there is no certificate in it")))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(key, path, &error)),
    }
}

fn unusable(key: &str, path: &Path, error: &dyn std::fmt::Display) -> Trouble {
    Trouble(format!("{key} = \"{}\" cannot be used: {error}", path.display()))
}
