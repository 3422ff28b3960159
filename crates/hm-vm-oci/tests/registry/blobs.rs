//! Blobs that arrive in spite of what happens to them, and those that cannot.

use std::io::Read as _;

use hm_vm_core::Cancellation;
use hm_vm_oci::{OciError, RegistryOptions, Source as _};
use hm_vm_testkit::registry::{
    Fault, FaultProxy, Faults, RegistryServer, RegistrySetup, need_registry,
};
use hm_vm_testkit::require;

use super::support::*;

const LENGTH: usize = 3 << 20;
const CUT: u64 = 1 << 20;

/// A registry with one blob, and a proxy before it.
struct Setting {
    _server: RegistryServer,
    proxy: FaultProxy,
    bytes: Vec<u8>,
}

impl Setting {
    fn new() -> Self {
        let server = RegistryServer::start(RegistrySetup::default()).unwrap();
        let proxy = FaultProxy::start(server.address(), Faults::none()).unwrap();
        let bytes = content(LENGTH);
        put(&repository(server.address()), &bytes).unwrap();
        Self {
            _server: server,
            proxy,
            bytes,
        }
    }

    fn read(&self, options: RegistryOptions) -> Result<Vec<u8>, OciError> {
        let repository = client(options).repository(&reference(&self.proxy.address()));
        read(&repository, &layer(&self.bytes))
    }

    /// `Range` of each request for the blob.
    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.proxy.requests();
        requests
            .iter()
            .map(|request| request.header("range").map(str::to_owned))
            .collect()
    }
}

#[test]
fn a_cut_download_goes_on_where_it_broke_off() {
    require!(need_registry());
    let setting = Setting::new();
    setting
        .proxy
        .set(faults([of_blobs(Fault::CutAfter(CUT)).times(2)]));
    assert!(setting.read(options()).unwrap() == setting.bytes);
    let expected = [None, Some("bytes=1048576-"), Some("bytes=2097152-")];
    assert_eq!(
        setting.ranges(),
        expected.map(|range| range.map(str::to_owned))
    );
}

#[test]
fn progress_starts_the_count_of_failures_anew() {
    require!(need_registry());
    let setting = Setting::new();
    let step = LENGTH as u64 / 6;
    setting
        .proxy
        .set(faults([of_blobs(Fault::CutAfter(step)).times(5)]));
    let options = RegistryOptions {
        retries: 1,
        ..options()
    };
    assert!(setting.read(options).unwrap() == setting.bytes);
}

#[test]
fn a_few_bytes_are_no_progress() {
    require!(need_registry());
    let setting = Setting::new();
    setting.proxy.set(faults([of_blobs(Fault::CutAfter(100))]));
    let error = setting.read(impatient()).unwrap_err();
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    assert_eq!(setting.proxy.requests().len(), 2);
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    require!(need_registry());
    let setting = Setting::new();
    setting.proxy.set(faults([
        of_blobs(Fault::CutAfter(CUT)).once(),
        of_blobs(Fault::ignore_range()),
    ]));
    assert!(setting.read(options()).unwrap() == setting.bytes);
}

#[test]
fn a_stalled_download_goes_on_over_another_connection() {
    require!(need_registry());
    let setting = Setting::new();
    setting
        .proxy
        .set(faults([of_blobs(Fault::StallAfter(CUT)).once()]));
    assert!(setting.read(impatient()).unwrap() == setting.bytes);
}

#[test]
fn failures_that_pass_are_waited_for() {
    require!(need_registry());
    let setting = Setting::new();
    for fault in [
        Fault::Drop,
        Fault::status(500),
        Fault::status(503),
        Fault::too_many_requests(0),
    ] {
        setting.proxy.set(faults([of_blobs(fault).times(2)]));
        assert!(setting.read(options()).unwrap() == setting.bytes);
    }
}

#[test]
fn failures_that_stay_are_told() {
    require!(need_registry());
    let setting = Setting::new();
    let failure = |fault: Fault| {
        setting.proxy.set(faults([of_blobs(fault)]));
        setting.read(impatient()).unwrap_err()
    };
    let error = failure(Fault::status(500));
    assert!(error.to_string().contains("500"), "{error}");
    let error = failure(Fault::too_many_requests(3600));
    assert!(error.to_string().contains("asked too often"), "{error}");
    assert!(error.to_string().contains("3600 s"), "{error}");
    assert!(error.is_temporary(), "{error}");
    for fault in [Fault::Stall, Fault::Drop, Fault::StallAfter(0)] {
        let error = failure(fault);
        assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    }
    // Nothing new comes after the cut.
    setting.proxy.set(faults([
        of_blobs(Fault::CutAfter(CUT)).once(),
        of_blobs(Fault::Drop),
    ]));
    let error = setting.read(impatient()).unwrap_err();
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
}

#[test]
fn wrong_content_is_found_out() {
    require!(need_registry());
    let setting = Setting::new();
    for fault in [
        Fault::TruncateTo(CUT),
        Fault::FlipByte(CUT),
        Fault::Endless,
        Fault::Length(LENGTH as u64 + 10),
        Fault::Length(CUT),
    ] {
        setting.proxy.set(faults([of_blobs(fault.clone())]));
        let error = setting.read(impatient()).unwrap_err();
        assert!(
            matches!(error, OciError::Mismatch { .. }),
            "{fault:?}: {error}"
        );
    }
}

#[test]
fn a_part_that_was_not_asked_for_is_not_taken() {
    require!(need_registry());
    let setting = Setting::new();
    let wrong = Fault::Header("Content-Range".to_owned(), "bytes 5-9/10".to_owned());
    setting.proxy.set(faults([
        of_blobs(Fault::CutAfter(CUT)).once(),
        of_blobs(wrong),
    ]));
    let error = setting.read(impatient()).unwrap_err();
    assert!(matches!(error, OciError::Answer { .. }), "{error}");
}

#[test]
fn cancellation_ends_a_stalled_download() {
    require!(need_registry());
    let setting = Setting::new();
    setting
        .proxy
        .set(faults([of_blobs(Fault::StallAfter(CUT))]));
    let cancel = Cancellation::new();
    let options = RegistryOptions {
        cancel: cancel.clone(),
        idle_timeout: std::time::Duration::from_secs(3600),
        ..options()
    };
    let repository = client(options).repository(&reference(&setting.proxy.address()));
    let mut reader = repository.open(&layer(&setting.bytes)).unwrap();
    let mut first = vec![0; usize::try_from(CUT).unwrap()];
    reader.read_exact(&mut first).unwrap();
    assert!(setting.bytes.starts_with(&first));
    cancel_when(&cancel, || true);
    let error = inner(reader.read(&mut [0]).unwrap_err());
    assert!(is_cancelled(&error), "{error}");
    let error = repository
        .open(&layer(&setting.bytes))
        .map(|_| ())
        .unwrap_err();
    assert!(is_cancelled(&error), "{error}");
}

#[test]
fn a_reader_that_is_dropped_ends_its_download() {
    require!(need_registry());
    let setting = Setting::new();
    let large = vec![0; 64 << 20];
    let mut blob = layer(b"");
    blob.size = large.len() as u64;
    setting
        .proxy
        .set(faults([of_blobs(answer(200, &[], &large))]));
    let repository = repository(&setting.proxy.address());
    let mut reader = repository.open(&blob).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    // Its connection is gone, and what was not read is not with it.
    setting.proxy.set(Faults::none());
    assert!(read(&repository, &layer(&setting.bytes)).unwrap() == setting.bytes);
    let sent = setting.proxy.requests()[0].received;
    assert!(sent < large.len() as u64, "{sent} bytes went out");
}
