//! Stories of a folder, of the kubelet that fills it, and of people who make mistakes.

use std::os::unix::fs::symlink;

use tokio::sync::mpsc;

use super::*;
use crate::bfd::auth::KeysError;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another secret of the house";

fn files(of: &[(&str, &str)]) -> Files {
    of.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// What the keys of files are, as they tell it themselves.
fn parsed(of: &[(&str, &str)]) -> Result<Option<String>, KeysFileError> {
    parse(&files(of)).map(|keys| keys.map(|keys| format!("{keys:?}")))
}

#[test]
fn a_single_key_is_sealed_with_and_several_need_a_word() {
    let one = Ok(Some("Keyring { ids: [3], sending: 3, .. }".to_owned()));
    assert_eq!(parsed(&[("3", SECRET)]), one);
    for sending in ["3", "3\n", " 3 \r\n"] {
        assert_eq!(parsed(&[("3", SECRET), ("send", sending)]), one, "{sending:?}");
    }
    let two = [("3", SECRET), ("255", OTHER)];
    assert_eq!(parsed(&two), Err(KeysFileError::NoSend(2)));
    let named = [two[0], two[1], ("send", "255")];
    assert_eq!(parsed(&named), Ok(Some("Keyring { ids: [3, 255], sending: 255, .. }".to_owned())));
}

#[test]
fn no_files_are_no_keys() {
    assert_eq!(parsed(&[]), Ok(None));
}

#[test]
fn whatever_else_lies_there_is_named() {
    for name in ["0", "256", "01", "+1", "-1", "1 ", "key", "Send", ".1.swp", "1.txt", ""] {
        let error = parsed(&[("1", SECRET), (name, SECRET)]).unwrap_err();
        assert_eq!(error, KeysFileError::Name(name.to_owned()));
        assert!(error.to_string().starts_with(&format!("{name:?} is no name of a key")), "{error}");
    }
}

#[test]
fn what_is_no_set_of_keys_is_refused_and_no_secret_is_told() {
    for sending in ["", "0", "256", "one", SECRET] {
        let error = parsed(&[("1", SECRET), ("send", sending)]).unwrap_err();
        assert_eq!(error, KeysFileError::Send);
        assert!(!error.to_string().contains(SECRET));
    }
    let unknown = KeyringError::from(KeysError::UnknownSender(2)).into();
    assert_eq!(parsed(&[("1", SECRET), ("send", "2")]), Err(unknown));
    assert_eq!(parsed(&[("send", "2")]), Err(KeyringError::from(KeysError::UnknownSender(2)).into()));
    // Fifteen bytes and a newline.
    let short = KeyringError::ShortSecret { id: 1, length: 15 };
    assert_eq!(parsed(&[("1", "fifteen bytes..\n")]), Err(short.into()));
}

#[test]
fn the_newline_at_the_end_of_a_file_is_no_part_of_the_secret() {
    for (bytes, secret) in [(&b"a\n"[..], &b"a"[..]), (b"a\r\n", b"a"), (b"a", b"a"), (b"a \n\n", b"a \n")] {
        assert_eq!(without_newline(bytes), secret, "{bytes:?}");
    }
}

#[test]
fn a_missing_or_empty_folder_means_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        assert!(KeysFolder::open(&path).unwrap().1.is_none());
    }
}

#[test]
fn a_folder_of_no_use_ends_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1"), "short").unwrap();
    let error = KeysFolder::open(folder.path()).err().unwrap().to_string();
    let beginning =
        format!("the keys in {} (--keys-dir, LANDFALL_KEYS_DIR) cannot be used", folder.path().display());
    assert!(error.starts_with(&beginning) && error.contains("`openssl rand -hex 32`"), "{error}");
    fs::remove_file(folder.path().join("1")).unwrap();
    fs::create_dir(folder.path().join("2")).unwrap();
    let error = KeysFolder::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("cannot read them: \"2\": "), "{error}");
}

/// Exchanges all files as the kubelet does: a new folder, and a link to it that takes the other's place.
fn mount(folder: &Path, generation: &str, of: &[(&str, &str)]) {
    let data = folder.join(generation);
    fs::create_dir(&data).unwrap();
    for (name, text) in of {
        fs::write(data.join(name), text).unwrap();
        if !folder.join(name).exists() {
            let _ = fs::remove_file(folder.join(name));
            symlink(Path::new(DATA).join(name), folder.join(name)).unwrap();
        }
    }
    symlink(generation, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join(DATA)).unwrap();
}

#[test]
fn the_kubelets_folder_is_read_by_the_link_that_it_exchanges() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "..first", &[("1", SECRET)]);
    assert_eq!(read(folder.path()).unwrap(), files(&[("1", SECRET)]));
    mount(folder.path(), "..second", &[("2", OTHER), ("send", "2")]);
    // The link `1` still lies there and leads nowhere any more.
    assert_eq!(read(folder.path()).unwrap(), files(&[("2", OTHER), ("send", "2")]));
    fs::remove_dir_all(folder.path().join("..second")).unwrap();
    assert!(read(folder.path()).is_err(), "a link that leads nowhere is not an empty folder");
}

fn opened(of: &[(&str, &str)]) -> KeysFolder {
    let mut folder =
        KeysFolder { folder: PathBuf::new(), seen: Ok(Files::default()), used: Files::default() };
    assert_eq!(matches!(folder.look(Ok(files(of))), Some(News::Keys(_))), !of.is_empty());
    folder
}

#[test]
fn the_same_again_is_no_news() {
    for of in [&[][..], &[("1", SECRET)]] {
        let mut folder = opened(of);
        for _ in 0..3 {
            assert!(folder.look(Ok(files(of))).is_none());
        }
    }
}

#[test]
fn a_mistake_is_said_once_and_again_when_it_is_another_one() {
    let mut folder = opened(&[("1", SECRET)]);
    let bad = || Ok(files(&[("1", "short")]));
    assert!(matches!(folder.look(bad()), Some(News::Refused(Error::Files(KeysFileError::Keyring(_))))));
    assert!(folder.look(bad()).is_none());
    let unreadable = || Err(io::Error::other("no disk"));
    assert!(matches!(folder.look(unreadable()), Some(News::Refused(Error::Read(_)))));
    assert!(folder.look(unreadable()).is_none());
    assert!(matches!(folder.look(bad()), Some(News::Refused(_))));
    assert!(matches!(folder.look(Ok(files(&[("1", SECRET)]))), Some(News::AsBefore)));
    assert!(matches!(folder.look(Ok(files(&[("1", OTHER)]))), Some(News::Keys(_))));
}

#[test]
fn keys_that_vanish_are_kept() {
    let mut folder = opened(&[("1", SECRET)]);
    assert!(matches!(folder.look(Ok(Files::default())), Some(News::Refused(Error::Vanished))));
    assert!(folder.look(Ok(Files::default())).is_none());
    assert!(matches!(folder.look(Ok(files(&[("1", SECRET)]))), Some(News::AsBefore)));
}

#[test]
fn a_mistake_of_one_who_had_no_keys_can_be_taken_back() {
    let mut folder = opened(&[]);
    assert!(matches!(folder.look(Ok(files(&[("key", SECRET)]))), Some(News::Refused(_))));
    assert!(matches!(folder.look(Ok(Files::default())), Some(News::AsBefore)));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_folder_is_told_once_and_never_that_there_are_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (watched, keys) = KeysFolder::open(folder.path()).unwrap();
    assert!(keys.is_none());
    let (tell, mut told) = mpsc::unbounded_channel();
    let watching = tokio::spawn(watched.watch(move |keys| tell.send(keys).unwrap()));
    let several_rounds = || tokio::time::sleep(3 * REREAD);
    several_rounds().await;
    assert!(told.try_recv().is_err());
    for (generation, of, expected) in [
        ("..1", &[("1", SECRET)][..], Some("Some(Keyring { ids: [1], sending: 1, .. })")),
        ("..2", &[("1", SECRET), ("2", OTHER)], None),
        ("..3", &[], None),
        (
            "..4",
            &[("1", SECRET), ("2", OTHER), ("send", "1")],
            Some("Some(Keyring { ids: [1, 2], sending: 1, .. })"),
        ),
    ] {
        mount(folder.path(), generation, of);
        several_rounds().await;
        let keys = told.try_recv().ok().map(|keys| format!("{keys:?}"));
        assert_eq!(keys.as_deref(), expected, "{generation}");
        assert!(told.try_recv().is_err(), "once");
    }
    watching.abort();
}
