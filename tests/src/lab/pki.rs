//! The cluster's keys, certificates and kubeconfigs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::plan;

/// The cluster's certificate authority, and the folder where everything signed by it lies.
pub(crate) struct Pki {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pki = Self { folder: folder.to_owned(), authority };
        fs::write(pki.authority_file(), pki.authority.pem())?;
        let signer = KeyPair::generate()?;
        fs::write(pki.token_key(), signer.serialize_pem())?;
        fs::write(pki.token_public_key(), signer.public_key_pem())?;
        Ok(pki)
    }

    /// The authority's certificate.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The key that signs ServiceAccount tokens.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.folder.join("tokens.key")
    }

    /// The key that ServiceAccount tokens are checked with.
    pub(crate) fn token_public_key(&self) -> PathBuf {
        self.folder.join("tokens.pub")
    }

    /// A certificate for a server that answers on these names and addresses.
    pub(crate) fn server(&self, name: &str, answers_on: &[String]) -> Result<Pair> {
        let mut params = CertificateParams::new(answers_on)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&format!("{name}-server"), params)
    }

    /// A certificate that makes its holder the user `name`, member of `group`.
    pub(crate) fn user(&self, name: &str, group: Option<&str>) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&name.replace(':', "-"), params)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        let pair = Pair {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&pair.certificate, certificate.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }

    /// Writes a kubeconfig for the user `name` with a certificate made now.
    pub(crate) fn kubeconfig(&self, name: &str, group: Option<&str>) -> Result<PathBuf> {
        let pair = self.user(name, group)?;
        let file = self.folder.join(format!("{}.kubeconfig", name.replace(':', "-")));
        let user = json!({"client-certificate": pair.certificate, "client-key": pair.key});
        write_kubeconfig(&file, &self.authority_file(), &user)?;
        Ok(file)
    }
}

/// Writes a kubeconfig whose user has these credentials.
pub(crate) fn write_kubeconfig(file: &Path, authority: &Path, user: &serde_json::Value) -> Result<()> {
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": plan::API_SERVER, "certificate-authority": authority}}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    });
    fs::write(file, serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}
