//! TLS on both sides: certificates of ours for clients, verification of next hops. One provider
//! (ring), so that no second crypto library is linked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::OnceCell;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::session::Target;
use crate::stream::BoxStream;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or is no PEM file of the kind needed.
    #[error("cannot read {what} from {path}: {cause}")]
    Pem {
        /// "certificate" or "private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not fit, or the system has no root store.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// Our side towards clients: certificate chain and key from PEM files.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let pem = |what, path: &Path, cause| TlsError::Pem { what, path: path.into(), cause };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| pem("certificate", certificate, cause))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| pem("private key", key, cause))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Our side towards next hops: one connector that verifies by the system's roots, one that takes any
/// certificate (opportunistic TLS, RFC 7435: better than none).
#[derive(Clone)]
pub struct Connectors {
    verifying: Arc<OnceCell<TlsConnector>>,
    trusting: TlsConnector,
}

impl Connectors {
    /// The system's root store is read when a certificate is to be verified for the first time: it
    /// takes some 10 ms and 1 MiB, too much for a start that may never need it.
    pub fn new() -> Result<Self, TlsError> {
        let trusting = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAny(provider())))
            .with_no_client_auth();
        Ok(Self { verifying: Arc::default(), trusting: Arc::new(trusting).into() })
    }

    /// Puts TLS on a stream to this target.
    pub async fn secure(&self, target: &Target, stream: BoxStream) -> io::Result<BoxStream> {
        let host = target.tls_name.as_deref().or(target.address.host()).unwrap_or("localhost");
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = if target.tls_verify {
            // A root store that cannot be read is tried again at the next connection.
            self.verifying.get_or_try_init(verifying).await?
        } else {
            &self.trusting
        };
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

async fn verifying() -> io::Result<TlsConnector> {
    let config = tokio::task::spawn_blocking(|| {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        Ok::<_, rustls::Error>(config)
    });
    Ok(TlsConnector::from(Arc::new(config.await?.map_err(io::Error::other)?)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes any certificate, but checks that the peer holds its key.
#[derive(Debug)]
struct TakesAny(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
