"""Planted bugs in certificates, their warnings, and `--check-config`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MISTAKES = "tests.daemon.test_preflight.Mistakes"

MUTANTS = (
    Mutant(
        name="a certificate outlives its authority",
        at="_validity",
        old="min(end, most)",
        new="end",
        caught_by="tests.cli.test_certificates.Lab.test_issue_certificate_within_the_authority",
    ),
    Mutant(
        name="a certificate is renewed that another authority has issued",
        at="_Authority.check_issued",
        old="certificate.verify_directly_issued_by(self.certificate)",
        new="pass",
        caught_by="tests.cli.test_certificates.Renewal.test_renew_certificate_refused",
    ),
    Mutant(
        name="a certificate is renewed whose key is lost",
        at="renew_certificate",
        old="_read_key(key_path).public_key() != old.public_key()",
        new="False",
        caught_by="tests.cli.test_certificates.Renewal.test_renew_certificate_refused",
    ),
    Mutant(
        name="a key is left whose certificate could not be written",
        at="_write_pair",
        old="key_path.unlink(missing_ok=True)",
        new="pass",
        caught_by="tests.cli.test_certificates.Lab.test_no_key_without_certificate",
    ),
    Mutant(
        name="a link in the place of an unfinished backup is followed",
        at="create_file",
        old="os.O_EXCL",
        new="os.O_TRUNC",
        caught_by="tests.cli.test_snapshot.Snapshots.test_save_for_its_owner_at_once",
    ),
    Mutant(
        name="a certificate that expires is told of only once it has",
        at="ending",
        old="left > NOTICE",
        new="left > timedelta(0)",
        caught_by="tests.transport.test_validity.Watch.test_daily",
    ),
    Mutant(
        name="an authority counts that is being replaced and no longer in use",
        at="end_of_authority",
        old="issuers or authorities",
        new="authorities",
        caught_by="tests.transport.test_validity.Ends.test_authority_in_use",
    ),
    Mutant(
        name="an intermediate certificate may expire unnoticed",
        at="_end_of_issuers",
        old="min(ends, default=None)",
        new="None",
        caught_by="tests.transport.test_validity.Ends.test_intermediate",
    ),
    Mutant(
        name="a certificate that was issued for another key passes the check",
        at="_Preflight._files",
        old="not loaded.is_matched",
        new="False",
        caught_by=f"{_MISTAKES}.test_key_of_another_certificate",
    ),
    Mutant(
        name="a certificate for another name passes the check",
        at="_Preflight._peers",
        old="not identity.is_named(name)",
        new="False",
        caught_by=f"{_MISTAKES}.test_certificate_for_another_name",
    ),
    Mutant(
        name="a server's certificate is not tried as that of a node that forwards",
        at="_Preflight._handshake",
        old="why is not None",
        new="False",
        caught_by=f"{_MISTAKES}.test_certificate_for_one_use",
    ),
    Mutant(
        name="peers and clients may be given one port",
        at="_meet",
        old="is_shared and one.port == other.port",
        new="False",
        caught_by=f"{_MISTAKES}.test_settings_themselves",
    ),
    Mutant(
        name="another node's data directory passes the check",
        at="_Preflight._node_of",
        old="owner is not None and owner != own",
        new="False",
        caught_by=f"{_MISTAKES}.test_data_of_another_node",
    ),
)
