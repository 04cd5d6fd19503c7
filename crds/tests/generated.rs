//! The committed YAML is what the types say.

#[test]
fn the_yaml_beside_the_types_is_generated_from_them() {
    for (file, definition) in landfall_crds::definitions() {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = landfall_crds::to_yaml(&definition).unwrap();
        assert!(
            committed == generated,
            "{path} is not what crds/src says: run `make manifests` and commit the result"
        );
    }
}
