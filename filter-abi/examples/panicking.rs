//! A filter that panics where its setting `panics` says: `create`, `check` or `drop`. For tests.

#![forbid(unsafe_code)]

use checkpost_filter_abi::{CouldNot, Finding, Host, Kind, LibraryFilter, Mail, Settings, export_filter};

struct Panicking(String);

impl LibraryFilter for Panicking {
    const NAME: &'static str = "panicking";
    const VERSION: &'static str = "1";
    const FINDS: &'static [Kind] = &[Kind::Malware];

    fn create(settings: &Settings<'_>, _host: &Host<'_>) -> Result<Self, String> {
        let filter = Self(settings.text("panics").unwrap_or_default().to_owned());
        assert!(filter.0 != "create", "as asked in create");
        Ok(filter)
    }

    fn check(&self, mail: &Mail<'_>) -> Result<(), CouldNot> {
        mail.report(&Finding::new(Kind::Malware, "Found.Before"));
        assert!(self.0 != "check", "as asked in check");
        Ok(())
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(self.0 != "drop", "as asked in drop");
    }
}

export_filter!(Panicking);
