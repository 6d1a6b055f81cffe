//! TLS 1.3 by rustls with aws-lc-rs: keys and certificates from PEM, verification against one root and by one name.
//!
//! A leaf that says CA:TRUE is refused (webpki does: `CaUsedAsEndEntity`). No resumption, no 0-RTT, no certificate of
//! the client's. X25519MLKEM768 is offered first and its key share sent at once.

use std::sync::Arc;

use noq_proto as proto;
use proto::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;

use crate::{invalid, Checked, InvalidInput};

fn wrong(what: &str) -> impl Fn(&dyn std::fmt::Display) -> InvalidInput + '_ {
    move |e| InvalidInput(format!("{what}: {e}"))
}

/// AES-128 first: it is what the rest of QUIC uses (RFC 9001, section 5), and the cheapest per byte.
fn provider() -> Arc<CryptoProvider> {
    let mut p = aws_lc_rs::default_provider();
    p.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(p)
}

fn certificates(what: &str, pem: &[u8]) -> Checked<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| wrong(what)(&e))?;
    if found.is_empty() {
        return invalid(format!("{what}: there is no certificate in this PEM"));
    }
    Ok(found)
}

fn alpn_names<S: AsRef<[u8]>>(names: &[S]) -> Checked<Vec<Vec<u8>>> {
    if names.is_empty() || names.iter().any(|n| n.as_ref().is_empty() || n.as_ref().len() > 255) {
        return invalid("alpn: at least one name, each of 1 to 255 bytes");
    }
    Ok(names.iter().map(|n| n.as_ref().to_vec()).collect())
}

/// Who is called, and how it is verified.
#[derive(Clone)]
pub struct Client {
    config: Arc<rustls::ClientConfig>,
    pub(crate) server_name: String,
}

impl Client {
    /// `root`: PEM of the one certificate that the server's chain has to end in.
    pub fn new(server_name: &str, root: &[u8], alpn: &[u8]) -> Checked<Self> {
        ServerName::try_from(server_name).map_err(|e| wrong("server_name")(&e))?;
        let [root] = <[_; 1]>::try_from(certificates("root", root)?)
            .map_err(|many| InvalidInput(format!("root: one certificate, not {}", many.len())))?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).map_err(|e| wrong("root")(&e))?;
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| wrong("root")(&e))?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| wrong("tls")(&e))?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn_names(&[alpn])?;
        Ok(Self { config: Arc::new(config), server_name: server_name.to_owned() })
    }

    pub(crate) fn quic(&self) -> Checked<QuicClientConfig> {
        QuicClientConfig::try_from(self.config.clone()).map_err(|e| wrong("tls")(&e))
    }
}

/// How we show ourselves.
#[derive(Clone)]
pub struct Server {
    config: Arc<rustls::ServerConfig>,
}

impl Server {
    /// `chain`: PEM, the leaf first, then what leads to the root. `key`: PEM of the leaf's private key (PKCS 8).
    pub fn new<S: AsRef<[u8]>>(chain: &[u8], key: &[u8], alpn: &[S]) -> Checked<Self> {
        let chain = certificates("chain", chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidInput("key: no private key in this PEM".into()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| wrong("tls")(&e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| wrong("chain and key")(&e))?;
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = alpn_names(alpn)?;
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn quic(&self) -> Checked<QuicServerConfig> {
        QuicServerConfig::try_from(self.config.clone()).map_err(|e| wrong("tls")(&e))
    }
}

/// What the handshake agreed on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub alpn: Vec<u8>,
    /// DER of the peer's leaf, where it showed one.
    pub certificate: Option<Vec<u8>>,
    /// The key exchange, as rustls names it.
    pub group: String,
}

impl Agreed {
    pub fn of(session: &dyn proto::crypto::Session) -> Self {
        let data = session.handshake_data().and_then(|d| d.downcast::<HandshakeData>().ok());
        let shown = session.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
        let group = data.as_ref().and_then(|d| d.negotiated_key_exchange_group);
        Self {
            group: group.map_or_else(String::new, |g| format!("{g:?}")),
            alpn: data.and_then(|d| d.protocol).unwrap_or_default(),
            certificate: shown.and_then(|c| c.first().map(|leaf| leaf.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused_in_one_line() {
        for pem in [&b""[..], b"hello", b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", &[0xff; 9]] {
            assert!(Client::new("a.b", pem, b"x").is_err());
            let error = Server::new(pem, pem, &[b"x"]).err().unwrap();
            assert!(!error.0.contains('\n'));
        }
    }
}
