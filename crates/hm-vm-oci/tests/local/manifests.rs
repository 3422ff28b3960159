//! Manifests and indexes, and the way from a root to an image.

use hm_vm_oci::{
    Descriptor, Digest, Index, OciError, Parsed, Platform, RawManifest, Resolved, media, resolve,
};

use super::image::{Image, read_all};
use super::memory::Memory;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// An entry of an index; what it is for is told as a stranger might write it.
fn entry(os_architecture: &str, content: &str) -> Descriptor {
    let mut entry = Descriptor::of(media::MANIFEST, content.as_bytes());
    let mut parts = os_architecture.split('/').map(str::to_owned);
    entry.platform = Some(Platform {
        os: parts.next().unwrap(),
        architecture: parts.next().unwrap(),
        variant: parts.next(),
    });
    entry
}

fn index(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: None,
        manifests,
        annotations: Default::default(),
    }
}

fn of_image(image: &Image) -> Memory {
    let blobs = image.blobs.iter().map(|(_, bytes)| bytes.clone());
    blobs.fold(Memory::new(image.manifest.to_raw()), Memory::with)
}

fn failure(found: Result<Resolved, OciError>) -> String {
    found.unwrap_err().to_string()
}

#[test]
fn the_best_fitting_image_is_chosen() {
    let index = index(vec![
        entry("unknown/unknown", "attestation"),
        entry("linux/386", "386"),
        entry("linux/arm/v5", "v5"),
        entry("linux/arm/v7", "v7"),
        entry("linux/aarch64", "arm64"),
        entry("linux/x86_64", "amd64"),
        entry("linux/amd64/v3", "amd64v3"),
        entry("linux/amd64", "another amd64"),
        entry("windows/amd64", "windows"),
    ]);
    for (wanted, content) in [
        ("linux/amd64", "amd64"),
        ("linux/amd64/v2", "amd64"),
        ("linux/amd64/v4", "amd64v3"),
        ("linux/arm64/v8", "arm64"),
        ("linux/arm/v6", "v5"),
        ("linux/arm/v7", "v7"),
        ("linux/386", "386"),
        ("windows/amd64", "windows"),
    ] {
        let chosen = index.choose(&platform(wanted)).unwrap();
        assert_eq!(chosen.digest, Digest::of(content.as_bytes()), "{wanted}");
    }
    let error = index
        .choose(&platform("linux/riscv64"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "no image for linux/riscv64: it is there for linux/386, linux/amd64, linux/amd64/v3, linux/arm/v5, \
         linux/arm/v7, linux/arm64, windows/amd64"
    );
}

#[test]
fn what_tells_no_platform_is_taken_last_and_signatures_never() {
    let mut signature = Descriptor::of(media::MANIFEST, b"signature");
    let name = "vnd.docker.reference.type".to_owned();
    signature
        .annotations
        .insert(name, "attestation-manifest".to_owned());
    let other = Descriptor::of("application/vnd.example+json", b"other");
    let untold = Descriptor::of(media::MANIFEST, b"untold");
    let index = index(vec![
        signature.clone(),
        other,
        untold,
        entry("linux/arm64", "arm64"),
    ]);
    let chosen = index.choose(&platform("linux/arm64")).unwrap();
    assert_eq!(chosen.digest, Digest::of(b"arm64"));
    let chosen = index.choose(&platform("linux/s390x")).unwrap();
    assert_eq!(chosen.digest, Digest::of(b"untold"));
    let none = super::manifests::index(vec![signature]);
    assert!(none.choose(&platform("linux/amd64")).is_err());
}

#[test]
fn kinds_are_told_by_type_and_by_content() {
    let image = Image::new(&["a"]).manifest;
    let bytes = image.to_raw().bytes;
    for media_type in [
        "",
        "application/json",
        media::MANIFEST,
        media::DOCKER_MANIFEST,
    ] {
        let raw = RawManifest::of(media_type, bytes.clone());
        if media_type.is_empty() {
            assert_eq!(raw.media_type, media::MANIFEST);
        }
        let expected = Parsed::Manifest(image.clone());
        match media_type {
            media::DOCKER_MANIFEST => assert!(raw.parse().is_ok()),
            _ => assert_eq!(raw.parse().unwrap(), expected),
        }
    }
    let bytes = br#"{"schemaVersion":2,"manifests":null,"layers":null}"#.to_vec();
    assert!(RawManifest::of("", bytes).parse().is_err());
    let bytes = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
    let raw = RawManifest::of("", bytes.clone());
    assert_eq!(raw.media_type, media::INDEX);
    assert!(matches!(raw.parse(), Ok(Parsed::Index(_))));
    assert!(RawManifest::of(media::MANIFEST, bytes).parse().is_err());
}

#[test]
fn what_no_two_readers_would_see_alike_is_refused() {
    let digest = Digest::of(b"");
    let part = |size: u64| format!(r#"{{"mediaType":"x","digest":"{digest}","size":{size}}}"#);
    let (small, huge) = (part(1), part(u64::MAX));
    for (document, reason) in [
        (
            format!(r#"{{"schemaVersion":2,"config":{small},"layers":[],"manifests":[]}}"#),
            "at once",
        ),
        (
            format!(r#"{{"schemaVersion":2,"config":{small},"config":{small}}}"#),
            "duplicate",
        ),
        (
            format!(r#"{{"schemaVersion":2,"config":{small},"layers":[{huge}]}}"#),
            "no sum",
        ),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.to_owned(),
            "schema 1",
        ),
        ("{}".to_owned(), "neither"),
        ("[]".to_owned(), "manifest sha256:"),
        (
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":-1}}}}"#),
            "invalid value",
        ),
        (
            r#"{"schemaVersion":2,"config":{"digest":"md5:0","size":1}}"#.to_owned(),
            "sha256",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"config":{small},"layers":[{}]}}"#,
                vec![small.clone(); 5000].join(",")
            ),
            "4096",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
                vec![small.clone(); 5000].join(",")
            ),
            "4096",
        ),
        ("[".repeat(1 << 20), "manifest sha256:"),
        (" ".repeat(5 << 20), "bytes"),
    ] {
        let error = RawManifest::of("", document.into_bytes())
            .parse()
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_image_is_found_by_way_of_indexes() {
    let image = Image::new(&["a", "b", "a"]);
    let raw = image.manifest.to_raw();
    let here = Platform::here().to_string();
    let mut child = Descriptor::of(media::MANIFEST, &raw.bytes);
    child.platform = entry(&here, "").platform;
    let inner = index(vec![entry("linux/mips", "mips"), child]).to_raw();
    let outer = index(vec![Descriptor::of(media::INDEX, &inner.bytes)]).to_raw();
    let mut source = of_image(&image).with(raw.bytes.clone()).with(inner.bytes);
    source.root = outer;
    let found = read_all(&source);
    assert_eq!(found.manifest_digest, raw.digest);
    assert_eq!(found.config_digest, image.id());
    assert_eq!(Digest::of(&found.config_bytes), image.id());
}

#[test]
fn an_index_cannot_lead_on_for_ever() {
    let mut raw = index(Vec::new()).to_raw();
    let mut all = vec![raw.bytes.clone()];
    for _ in 0..20 {
        raw = index(vec![Descriptor::of(media::INDEX, &raw.bytes)]).to_raw();
        all.push(raw.bytes.clone());
    }
    let source = all.into_iter().fold(Memory::new(raw), Memory::with);
    let error = failure(resolve(&source, &Platform::here()));
    assert!(error.contains("deep"), "{error}");
}

#[test]
fn what_is_no_image_for_this_machine_is_refused() {
    let image = Image::new(&["a", "b"]);
    let here = Platform::here();

    let mut fewer = image.clone();
    fewer.manifest.layers.pop();
    let error = failure(resolve(&of_image(&fewer), &here));
    assert!(error.contains("names 2 layers, its manifest 1"), "{error}");

    let mut chart = image.clone();
    chart.manifest.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    let error = failure(resolve(&of_image(&chart), &here));
    assert!(
        error.contains("it is no image, but application/vnd.cncf.helm"),
        "{error}"
    );

    let error = failure(resolve(&of_image(&image), &platform("linux/s390x")));
    assert!(error.contains("not for linux/s390x"), "{error}");

    let mut large = image.clone();
    large.manifest.config.size = 1 << 40;
    assert!(failure(resolve(&of_image(&large), &here)).contains("more than"));

    let mut lying = of_image(&image);
    let config = lying.blobs.get_mut(&image.id()).unwrap();
    config[0] ^= 1;
    let error = resolve(&lying, &here).unwrap_err();
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
}
