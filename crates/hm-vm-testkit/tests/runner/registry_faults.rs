//! The proxy that misbehaves: every fault is the one that was asked for, and nothing else is.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hm_vm_testkit::registry::{
    Fault, FaultProxy, Faults, RegistryServer, RegistrySetup, Rule, TestImage, need_registry,
};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

/// Far longer than anything takes here: a test that hangs ends.
const LONG: Duration = Duration::from_secs(30);

/// A server that answers every request with its own head as text behind ten digits, and the
/// request's body behind that. Its thread ends with the test's process.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut reader = BufReader::new(client.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
                if let Some(told) = head[start..].strip_prefix("Content-Length: ") {
                    length = told.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            // A request that was cut.
            if reader.read_exact(&mut body).is_err() || head.is_empty() {
                continue;
            }
            let answer = format!("0123456789{head}{}", String::from_utf8(body).unwrap());
            let text = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nDocker-Content-Digest: sha256:1\r\n\r\n{answer}",
                answer.len()
            );
            drop(reader.into_inner().write_all(text.as_bytes()));
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// What comes back for a request, to the end of the connection.
fn ask_with(proxy: &FaultProxy, headers: &str, body: &str) -> String {
    let mut stream = connect(proxy);
    let request = format!(
        "GET /v2/a/blobs/b HTTP/1.1\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    // A proxy that cuts may do so before all of the request is written.
    drop(stream.write_all(request.as_bytes()));
    drop(stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    assert!(
        end.as_ref().err().map(std::io::Error::kind) != Some(std::io::ErrorKind::WouldBlock),
        "the connection stays open"
    );
    String::from_utf8(answer).unwrap()
}

fn ask(proxy: &FaultProxy) -> String {
    ask_with(proxy, "", "")
}

fn with(fault: Fault) -> FaultProxy {
    FaultProxy::start(&echo(), Faults::none().always("*/blobs/*", fault)).unwrap()
}

/// Head and body of an answer.
fn parts(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap()
}

fn told_length(answer: &str) -> usize {
    let (head, _) = parts(answer);
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn without_faults_everything_passes_and_is_counted() {
    let proxy = FaultProxy::start(&echo(), Faults::none()).unwrap();
    let answer = ask_with(&proxy, "X-One: 1\r\n", "body");
    let (head, body) = parts(&answer);
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(body.contains("X-One: 1") && body.ends_with("\r\n\r\nbody"));
    assert_eq!(told_length(&answer), body.len());
    let requests = proxy.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/v2/a/blobs/b")
    );
    assert_eq!((request.status, request.sent), (200, 4));
    assert_eq!(request.received, body.len() as u64);
    assert_eq!(request.header("x-one"), Some("1"));
    assert_eq!(proxy.bytes(), (4, body.len() as u64));
}

#[test]
fn connections_stay_open_between_requests() {
    let proxy = FaultProxy::start(&echo(), Faults::none()).unwrap();
    let mut stream = connect(&proxy);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"GET /x HTTP/1.1\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let mut body = vec![0; told_length(&head)];
        reader.read_exact(&mut body).unwrap();
        assert!(body.starts_with(b"0123456789GET /x"));
    }
    assert_eq!(proxy.requests().len(), 3);
}

#[test]
fn bodies_are_cut_truncated_corrupted_and_lied_about() {
    let answer = ask(&with(Fault::CutAfter(5)));
    assert_eq!(parts(&answer).1, "01234");
    assert!(told_length(&answer) > 20);

    let answer = ask(&with(Fault::TruncateTo(5)));
    assert_eq!((parts(&answer).1, told_length(&answer)), ("01234", 5));

    let answer = ask(&with(Fault::FlipByte(3)));
    assert!(parts(&answer).1.starts_with("012\u{13}456"), "{answer:?}");

    let answer = ask(&with(Fault::Length(3)));
    assert_eq!(told_length(&answer), 3);
    assert!(parts(&answer).1.len() > 20);

    let answer = ask(&with(Fault::wrong_digest()));
    assert!(answer.contains("Docker-Content-Digest: sha256:00000000"));
    assert!(!answer.contains("sha256:1\r\n"));

    let proxy = with(Fault::ignore_range());
    let answer = ask_with(&proxy, "range: bytes=1-\r\n", "");
    assert!(!answer.contains("bytes=1-"), "{answer}");
    assert_eq!(proxy.requests()[0].header("Range"), Some("bytes=1-"));
}

#[test]
fn requests_are_answered_with_errors_dropped_and_cut() {
    let proxy = with(Fault::too_many_requests(7));
    let answer = ask_with(&proxy, "", "body");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("Retry-After: 7\r\n"), "{answer}");
    assert_eq!(proxy.requests()[0].status, 429);

    assert_eq!(ask(&with(Fault::Drop)), "");
    assert_eq!(
        ask_with(&with(Fault::CutRequestAfter(3)), "", "many bytes"),
        ""
    );

    let challenge =
        Rule::new("*", Fault::status(401)).unless_header("Authorization", "Bearer good");
    let proxy = FaultProxy::start(&echo(), Faults::none().with(challenge)).unwrap();
    assert!(ask(&proxy).starts_with("HTTP/1.1 401 "));
    assert!(ask_with(&proxy, "Authorization: Bearer good\r\n", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn faults_happen_as_often_as_was_asked_for() {
    let faults = Faults::none().once("*", Fault::CutAfter(2));
    let proxy = FaultProxy::start(&echo(), faults).unwrap();
    let lengths = [(); 2].map(|()| parts(&ask(&proxy)).1.len());
    assert_eq!(lengths[0], 2);
    assert!(lengths[1] > 2);
    proxy.set(Faults::none().once("*", Fault::status(500)));
    assert!(ask(&proxy).starts_with("HTTP/1.1 500 "));
    assert!(ask(&proxy).starts_with("HTTP/1.1 200 "));
}

#[test]
fn stalls_last_until_the_proxy_ends() {
    for fault in [
        Fault::Stall,
        Fault::StallAfter(4),
        Fault::StallRequestAfter(2),
    ] {
        let proxy = with(fault.clone());
        let mut stream = connect(&proxy);
        stream
            .write_all(b"GET /v2/a/blobs/b HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
            .unwrap();
        let mut start = vec![];
        if fault == Fault::StallAfter(4) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !start.ends_with(b"\r\n\r\n") {
                assert!(reader.read_until(b'\n', &mut start).unwrap() > 0);
            }
            let mut part = [0; 4];
            reader.read_exact(&mut part).unwrap();
            assert_eq!(&part, b"0123");
        }
        drop(proxy);
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        assert_eq!(rest, b"", "{fault:?}");
    }
}

#[test]
fn an_endless_body_goes_on() {
    let proxy = with(Fault::Endless);
    let mut stream = connect(&proxy);
    stream
        .write_all(b"GET /v2/a/blobs/b HTTP/1.1\r\n\r\n")
        .unwrap();
    let mut much = vec![0; 4 << 20];
    stream.read_exact(&mut much).unwrap();
    let head = String::from_utf8_lossy(&much[..200]).into_owned();
    assert!(
        head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"),
        "{head}"
    );
}

#[test]
fn slow_and_late_answers_are_whole() {
    let answer = ask(&with(Fault::Slow(2000)));
    assert_eq!(parts(&answer).1.len(), told_length(&answer));
    let answer = ask(&with(Fault::Delay(Duration::from_millis(10))));
    assert_eq!(parts(&answer).1.len(), told_length(&answer));
}

#[test]
fn a_proxy_that_refuses_can_accept_again() {
    let mut proxy = FaultProxy::start(&echo(), Faults::none()).unwrap();
    let address = proxy.address();
    proxy.refuse();
    TcpStream::connect(&address).unwrap_err();
    proxy.accept().unwrap();
    assert!(ask(&proxy).starts_with("HTTP/1.1 200 "));
    assert_eq!(proxy.address(), address);
}

#[test]
fn an_image_goes_through_a_proxy_both_ways() {
    require!(need_registry());
    require!(TestImage::need_tools());
    let root = TestRoot::new().unwrap();
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let proxy = FaultProxy::start(server.address(), Faults::none()).unwrap();
    let image = TestImage::empty(&root.join("layout")).unwrap();
    let tree = root.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), vec![7; 3 << 20]).unwrap();
    image.add_tree(&tree, "/").unwrap();
    image
        .push_to(&proxy.address(), "some/image:tag", &[])
        .unwrap();
    assert!(
        server
            .requests()
            .unwrap()
            .iter()
            .any(hm_vm_testkit::registry::Request::stored_manifest)
    );
    assert!(proxy.bytes().0 > 1000);
    let status = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{}/some/image:tag", proxy.address()))
        .arg(format!("dir:{}", root.join("back").display()))
        .status()
        .unwrap();
    assert!(status.success());
}
