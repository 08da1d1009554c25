"""Mistakes with ranges, preconditions, names and addresses: pure code, where a wrong answer is a corrupt file."""

from __future__ import annotations

from mutant import mutant

HTTP = (
    mutant(
        "If-Range is compared weakly",
        "http/preconditions.py",
        ("return _same(validator, etag, strong=True)", "return _same(validator, etag, strong=False)"),
        test="http/test_preconditions.py::test_if_range",
    ),
    mutant(
        "a wrong If-Range still gives a part",
        "http/preconditions.py",
        ("and (if_range is None or _unchanged(if_range, etag, last_modified, now))", ""),
        test="http/test_preconditions.py::test_if_range",
    ),
    mutant(
        "a date in If-Range that is seconds old is trusted",
        "http/preconditions.py",
        ("now - last_modified >= _STRONG_AFTER and ", ""),
        test="http/test_preconditions.py::test_a_fresh_date_is_no_strong_validator",
    ),
    mutant(
        "If-Match is compared weakly",
        "http/preconditions.py",
        ("_listed(if_match, etag, strong=True)", "_listed(if_match, etag, strong=False)"),
        test="http/test_preconditions.py::test_a_weak_etag_never_matches_strongly",
    ),
    mutant(
        "If-None-Match comes before If-Match",
        "http/preconditions.py",
        ("    if if_match is not None:\n", "    if if_match is not None and if_none_match is None:\n"),
        test="http/test_preconditions.py::test_verdict",
    ),
    mutant(
        "If-Modified-Since counts beside If-None-Match",
        "http/preconditions.py",
        ("    elif reading and _later(", "    if reading and _later("),
        test="http/test_preconditions.py::test_verdict",
    ),
    mutant(
        "a Range is followed for HEAD",
        "http/preconditions.py",
        ('range_allowed = method == "GET" and', 'range_allowed = method in ("GET", "HEAD") and'),
        test="http/test_preconditions.py::test_a_range_is_for_get_only",
    ),
    mutant(
        "bytes=-0 is the whole file",
        "http/ranges.py",
        ("size) if suffix else None", "size) if suffix else Span(0, size)"),
        test="http/test_ranges.py::test_nothing_inside_the_file_is_unsatisfiable",
    ),
    mutant(
        "a range of another unit is taken for bytes",
        "http/ranges.py",
        ('if unit.strip(" \\t").lower() != "bytes":', 'if not unit.strip(" \\t"):'),
        test="http/test_ranges.py::test_what_is_not_a_range_is_ignored",
    ),
    mutant(
        "an inverted range is 416",
        "http/ranges.py",
        ("last < first:\n            return None", "last < first:\n            return [(_BEYOND, None)]"),
        test="http/test_ranges.py::test_what_is_not_a_range_is_ignored",
    ),
    mutant(
        "a suffix longer than the file begins before it",
        "http/ranges.py",
        ("suffix = min(last or 0, size)", "suffix = last or 0"),
        test="http/test_ranges.py::test_ranges",
    ),
    mutant(
        "the last byte of a range is left out",
        "http/ranges.py",
        ("min(last + 1, size))", "min(last, size))"),
        test="http/test_ranges.py::test_ranges",
    ),
    mutant(
        "a range inside another one cuts it off when they are merged",
        "http/ranges.py",
        ("max(merged[-1].stop, span.stop)", "span.stop"),
        test="http/test_ranges.py::test_exactly_the_bytes_asked_for_are_sent_once",
    ),
    mutant(
        "overlapping ranges are sent twice",
        "http/ranges.py",
        ("if merged and span.start <= merged[-1].stop:", "if merged and span.start == merged[-1].stop:"),
        test="http/test_ranges.py::test_exactly_the_bytes_asked_for_are_sent_once",
    ),
    mutant(
        "several ranges are not sorted",
        "http/ranges.py",
        ("in sorted(spans, key=lambda span: span.start):", "in spans:"),
        test="http/test_ranges.py::test_ranges",
    ),
    mutant(
        "any number of ranges is answered",
        "http/ranges.py",
        ("    if len(elements) > cap:\n", "    if not elements:\n"),
        test="http/test_ranges.py::test_past_the_cap_the_whole_file_is_sent",
    ),
    mutant(
        "a multipart answer promises the bytes of its spans alone",
        "http/ranges.py",
        ("sum(map(len, heads)) + sum(", "sum("),
        test="services/test_responding.py::test_a_multipart_answer_adds_up",
    ),
    mutant(
        "a range that covers the whole file is answered 200",
        "services/responding.py",
        (
            "case Parts(ranges=(span,)):",
            (
                "case Parts(ranges=(span,)) if span.length == stored.size:\n"
                "            return _single(request, 200, headers, ByteRange(0, stored.size), stored.size)\n"
                "        case Parts(ranges=(span,)):"
            ),
        ),
        test="services/test_responding.py::test_plans",
    ),
    mutant(
        "HEAD gets a body",
        "services/responding.py",
        ('if request.method != "HEAD" and part.length', "if part.length"),
        test="services/test_responding.py::test_plans",
    ),
    mutant(
        "an empty file is charged for",
        "services/responding.py",
        ('!= "HEAD" and part.length else ()', '!= "HEAD" else ()'),
        test="services/test_responding.py::test_an_empty_file_has_no_segment",
    ),
    mutant(
        "proxies may recompress the file",
        "services/responding.py",
        ('"private, no-transform"', '"private"'),
        test="door/test_answers.py::test_the_whole_file",
    ),
    mutant(
        "browsers may guess what a file is",
        "services/responding.py",
        ('    "X-Content-Type-Options": "nosniff",\n', ""),
        test="door/test_answers.py::test_the_whole_file",
        shows="KeyError: 'X-Content-Type-Options'",
    ),
    mutant(
        "HEAD is told where an external file lies",
        "services/responding.py",
        ('where = {} if method == "HEAD" else ', "where = "),
        test="door/test_policy.py::test_an_external_file_is_counted_and_sent_elsewhere",
    ),
    mutant(
        "pages are shown as pages on the shop's own address",
        "http/media.py",
        ("frozenset({PDF, TEXT, ", 'frozenset({PDF, TEXT, "text/html", '),
        test="http/test_media.py::test_active_types_are_never_shown_inline",
    ),
    mutant(
        "the store's content type goes into a header as it is",
        "http/media.py",
        (" and _MEDIA_TYPE.fullmatch(said)", ""),
        test="services/test_responding.py::test_the_stores_content_type_never_reaches_a_header_unchecked",
    ),
    mutant(
        "line breaks stay in a file's name",
        "http/disposition.py",
        (r're.compile("[\x00-\x1f\x7f', r're.compile("[\x7f'),
        test="http/test_disposition.py::test_fallback_and_extended",
    ),
    mutant(
        "quotes stay in filename=",
        "http/disposition.py",
        (r"[\"\\/%;]", r"[\\/%;]"),
        test="http/test_disposition.py::test_any_name_is_one_harmless_line_that_reads_back",
    ),
    mutant(
        "letters that are not ASCII stand in filename=",
        "http/disposition.py",
        ('_NOT_IN_QUOTES.sub("_", "".join(map(_ascii, kept)))', "kept"),
        test="http/test_disposition.py::test_fallback_and_extended",
    ),
    mutant(
        "filename* is left out",
        "http/disposition.py",
        ("; filename*=UTF-8''{quote(kept, safe=_ATTR_CHARS)}", ""),
        test="http/test_disposition.py::test_fallback_and_extended",
    ),
    mutant(
        "a name keeps its path",
        "http/disposition.py",
        ('re.split(r"[/\\\\]", name.rstrip("/\\\\"))[-1]', "name"),
        test="http/test_disposition.py::test_file_name",
    ),
    mutant(
        "the leftmost X-Forwarded-For is the client",
        "http/forwarded.py",
        ("    for hop in _hops(headers):", "    for hop in reversed(_hops(headers)):"),
        test="http/test_forwarded.py::test_x_forwarded_for",
    ),
    mutant(
        "X-Forwarded-For is believed of anybody",
        "http/forwarded.py",
        (
            "address = parse_address(peer)\n    if address is None or not _is_trusted(address, trusted):",
            "address = parse_address(peer)\n    if address is None:",
        ),
        test="http/test_forwarded.py::test_an_untrusted_peer_is_the_client_whatever_it_says",
    ),
    mutant(
        "a broken X-Forwarded-For makes the proxy the client",
        "http/forwarded.py",
        ("        address = _node(hop)\n", "        address = _node(hop) or address\n"),
        test="http/test_forwarded.py::test_x_forwarded_for",
    ),
    mutant(
        "X_Forwarded_For is read, too",
        "http/forwarded.py",
        ("if key.lower() == name)", 'if key.lower().replace("_", "-") == name)'),
        test="http/test_forwarded.py::test_no_other_header_is_read",
    ),
    mutant(
        "of several lines of a header the first alone is read",
        "http/forwarded.py",
        ('",".join(value for key', '",".join([value for key'),
        ("if key.lower() == name)", "if key.lower() == name][:1])"),
        test="http/test_forwarded.py::test_lines_are_joined_in_their_order",
    ),
    mutant(
        "::ffff:10.0.0.1 is no IPv4 address",
        "http/forwarded.py",
        ("return address.ipv4_mapped or IPv6Address(address.packed)", "return IPv6Address(address.packed)"),
        test="http/test_forwarded.py::test_the_peer_is_unmapped_and_loses_its_scope",
    ),
    mutant(
        "every IPv6 address is a network of its own",
        "policy/networks.py",
        ("_NEAR_IPV6 = 24, 56", "_NEAR_IPV6 = 24, 128"),
        test="policy/test_networks.py::test_the_network_that_counts_as_one_place",
    ),
    mutant(
        "host bits in a network are passed over in silence",
        "policy/networks.py",
        ("    if address != network.network_address:\n", "    if address.is_unspecified:\n"),
        test="policy/test_conditions.py::test_what_is_wrong_and_what_would_be_right",
    ),
    mutant(
        "host bits in a token's network are passed over in silence",
        "policy/claims.py",
        ("network = ip_network(entry)", "network = ip_network(entry, strict=False)"),
        test="policy/test_claims.py::test_refused",
    ),
    mutant(
        "a rule's address in IPv6 clothes matches nobody",
        "policy/networks.py",
        ("    return _native(network)\n\n", "    return network\n\n"),
        test="policy/test_conditions.py::test_a_mapped_network_means_the_ipv4_one",
    ),
    mutant(
        "the smallest network alone is looked into",
        "policy/index.py",
        ("inside |= rules.get(number >> bits, 0)", "inside = rules.get(number >> bits, 0)"),
        test="policy/test_ruleset.py::test_a_network_inside_another_is_asked_for_by_both",
    ),
    mutant(
        "letters that turn the line around stay in a name",
        "http/disposition.py",
        ('_INVISIBLE.sub("", base)', "base"),
        test="http/test_disposition.py::test_file_name",
    ),
    mutant(
        "a range of a thousand digits breaks the answer",
        "http/ranges.py",
        ('    if len(digits.lstrip("0")) > _DIGITS_MAX:\n        return _BEYOND\n', ""),
        ("return int(digits[-_DIGITS_MAX:])", "return int(digits)"),
        test="http/test_ranges.py::test_ranges",
        shows="ValueError",
    ),
    mutant(
        "any number of hops is gone through",
        "http/forwarded.py",
        ("_HOPS_MAX = 32", "_HOPS_MAX = 100_000"),
        test="http/test_forwarded.py::test_the_walk_is_bounded",
    ),
)
