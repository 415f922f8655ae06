package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxNodes bounds the values that are looked at, aliases counted each time, so that a small file that unfolds into a
// huge one ends early.
const maxNodes = 100_000

// decoder walks the nodes of a YAML document. The library's own mapping to structs is not used: its messages show Go
// types, and it says nothing of columns.
type decoder struct {
	file     string
	errs     []*Error
	warnings []*Error
	nodes    int
	later    []func() // checks across values, made when all have been read
}

func (d *decoder) fail(n *yaml.Node, path, fix, format string, args ...any) {
	if !d.full() {
		d.errs = append(d.errs, d.problem(n, path, fix, format, args...))
	}
}

// full reports whether there are more problems than are told. Those that are told are the first of the file, which is
// nearly the order they are found in.
func (d *decoder) full() bool { return len(d.errs) >= 2*maxErrors }

func (d *decoder) warn(n *yaml.Node, path, fix, format string, args ...any) {
	d.warnings = append(d.warnings, d.problem(n, path, fix, format, args...))
}

func (d *decoder) problem(n *yaml.Node, path, fix, format string, args ...any) *Error {
	return &Error{
		File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1),
		Path: path, Message: fmt.Sprintf(format, args...), Fix: fix,
	}
}

// document returns the root of the only document in b, or nil after a failure.
func (d *decoder) document(b []byte) *yaml.Node {
	if len(b) > MaxBytes {
		d.fail(&yaml.Node{}, "", "split off what is not about services", "the file has more than %d bytes", MaxBytes)
		return nil
	}
	if at, what := badText(b); what != "" {
		d.fail(position(b, at), "", "save the file as plain UTF-8 text", "%s", what)
		return nil
	}
	var docs []yaml.Node
	err := yaml.Load(b, &docs, yaml.WithAllDocuments())
	if err != nil {
		d.syntax(err)
		return nil
	}
	switch {
	case len(docs) == 0 || len(docs[0].Content) == 0 || docs[0].Content[0].ShortTag() == "!!null":
		d.fail(&yaml.Node{}, "", "begin with: version: 1", "the file is empty")
		return nil
	case len(docs) > 1:
		d.fail(&docs[1], "", "remove the --- and what follows", "there is a second YAML document")
		return nil
	}
	return docs[0].Content[0]
}

// syntax tells the library's errors. A *LoadErrors must be looked for first: it passes for a *LoadError too, with only
// one of the errors it holds.
func (d *decoder) syntax(err error) {
	var several *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case errors.As(err, &several):
		for _, e := range several.Errors {
			d.syntaxError(e)
		}
	case errors.As(err, &one):
		d.syntaxError(one)
	}
	if len(d.errs) == 0 {
		d.fail(&yaml.Node{}, "", "", "the file is not YAML")
	}
}

func (d *decoder) syntaxError(e *yaml.LoadError) {
	fix := "check the indentation, the colons and the quotes here"
	switch {
	case strings.Contains(e.Message, "tab character"):
		fix = "indent with spaces"
	case strings.Contains(e.Message, "unknown anchor"):
		fix = `if a value begins with *, write it in quotes`
	case strings.Contains(e.Message, "mapping values are not allowed"):
		fix = `write a value that contains ": " in quotes`
	}
	message := strings.TrimPrefix(e.Message, "yaml: ")
	if e.ContextMsg != "" {
		message += " " + e.ContextMsg
	}
	d.fail(&yaml.Node{Line: e.Mark.Line, Column: e.Mark.Column}, "", fix, "not valid YAML: %s", message)
}

// badText finds the first byte that no YAML file may have; what is "" if there is none.
func badText(b []byte) (at int, what string) {
	for at < len(b) {
		r, size := utf8.DecodeRune(b[at:])
		switch {
		case r == utf8.RuneError && size == 1:
			return at, "the text is not UTF-8"
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return at, fmt.Sprintf("there is a control character (%U)", r)
		}
		at += size
	}
	return 0, ""
}

// position makes a node that stands at the byte offset.
func position(b []byte, at int) *yaml.Node {
	before := string(b[:at])
	line := strings.LastIndexByte(before, '\n') + 1
	return &yaml.Node{Line: strings.Count(before, "\n") + 1, Column: utf8.RuneCountInString(before[line:]) + 1}
}

// resolve follows an alias and counts the node. It returns nil if there are too many.
func (d *decoder) resolve(n *yaml.Node, path string) *yaml.Node {
	d.nodes++
	if d.nodes == maxNodes {
		d.fail(n, path, "use fewer aliases", "the file unfolds into more than %d values", maxNodes)
	}
	if d.nodes >= maxNodes {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// kind says in plain words what a node is.
func kind(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!map":
		return "a mapping"
	case "!!seq":
		return "a list"
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	default:
		return "a value with a tag"
	}
}

// field is one key a mapping may have.
type field struct {
	name string
	read func(n *yaml.Node, path string)
}

// object reads a mapping with known keys. A key without a value counts as absent.
func (d *decoder) object(n *yaml.Node, path string, fields ...field) {
	d.mapping(n, path, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			if d.full() {
				return
			}
			known := make([]string, len(fields))
			for i, f := range fields {
				known[i] = f.name
			}
			d.fail(key, path, didYouMean(key.Value, known), "unknown key %s", quote(key.Value))
			return
		}
		if value.ShortTag() != "!!null" {
			fields[i].read(value, join(path, key.Value))
		}
	})
}

// mapping calls each with every key and value of a mapping; keys are text, and none comes twice.
func (d *decoder) mapping(n *yaml.Node, path string, each func(key, value *yaml.Node)) {
	if n = d.resolve(n, path); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		d.fail(n, path, "write key: value pairs", "this must be a mapping, not %s", kind(n))
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := d.resolve(n.Content[i], path)
		if key == nil {
			return
		}
		if key.ShortTag() != "!!str" {
			fix := "write it in quotes"
			if key.ShortTag() == "!!merge" {
				fix = "write the keys out"
			}
			d.fail(n.Content[i], path, fix, "a key must be text, not %s", kind(key))
			continue
		}
		if line, twice := seen[key.Value]; twice {
			d.fail(n.Content[i], path, "keep one of them", "key %s stands twice, first in line %d", quote(key.Value), line)
			continue
		}
		seen[key.Value] = n.Content[i].Line
		each(key, n.Content[i+1])
	}
}

// list calls each with every element of a list.
func (d *decoder) list(n *yaml.Node, path string, each func(n *yaml.Node, path string)) {
	at := n
	if n = d.resolve(n, path); n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		d.fail(at, path, "write it like [a, b]", "this must be a list, not %s", kind(n))
		return
	}
	for i, e := range n.Content {
		each(e, path+"["+strconv.Itoa(i)+"]")
		if d.nodes >= maxNodes {
			return
		}
	}
}

// text reads a string. Numbers and such are refused, for YAML has changed them already: 010, 1e3, no, 2026-01-01.
func (d *decoder) text(n *yaml.Node, path string) (string, bool) {
	at := n
	if n = d.resolve(n, path); n == nil {
		return "", false
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n.Value, true
	}
	fix := "write one text" // the value is not repeated: it may be a secret
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		fix = "write it in quotes"
	}
	d.fail(at, path, fix, "this must be text, not %s", kind(n))
	return "", false
}

// texts reads a list of strings.
func (d *decoder) texts(n *yaml.Node, path string, each func(s string, n *yaml.Node, path string)) {
	d.list(n, path, func(n *yaml.Node, path string) {
		if s, ok := d.text(n, path); ok {
			each(s, n, path)
		}
	})
}

// number reads a whole decimal number from low to high.
func (d *decoder) number(n *yaml.Node, path string, low, high int) (int, bool) {
	at := n
	if n = d.resolve(n, path); n == nil {
		return 0, false
	}
	v, err := strconv.Atoi(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int":
		fix := fmt.Sprintf("write a whole number from %d to %d", low, high)
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && err == nil {
			fix = "write it without quotes"
		}
		d.fail(at, path, fix, "this must be a whole number, not %s", kind(n))
		return 0, false
	case err != nil || v < low || v > high || n.Value != strconv.Itoa(v):
		d.fail(at, path, fmt.Sprintf("write a whole number from %d to %d", low, high), "%s is not allowed", quote(n.Value))
		return 0, false
	}
	return v, true
}

func (d *decoder) boolean(n *yaml.Node, path string) (bool, bool) {
	at := n
	if n = d.resolve(n, path); n == nil {
		return false, false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		d.fail(at, path, "write true or false", "this must be true or false, not %s", kind(n))
		return false, false
	}
	return strings.EqualFold(n.Value, "true"), true
}

// duration reads a positive time with its unit.
func (d *decoder) duration(n *yaml.Node, path string) (time.Duration, bool) {
	at := n
	if n = d.resolve(n, path); n == nil {
		return 0, false
	}
	const fix = "write a time with its unit, such as 500ms, 60s or 5m"
	switch n.ShortTag() {
	case "!!str":
	case "!!int":
		if len(n.Value) < 10 {
			d.fail(at, path, "write "+n.Value+"s if seconds are meant", "the unit is missing")
			return 0, false
		}
		fallthrough
	default:
		d.fail(at, path, fix, "this must be a time, not %s", kind(n))
		return 0, false
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		d.fail(at, path, fix, "%s is not a time", quote(n.Value))
		return 0, false
	}
	if v <= 0 {
		d.fail(at, path, fix, "the time must be more than 0")
		return 0, false
	}
	return v, true
}

// quote quotes a value of the file, shortened so that a message stays one line.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}

var rxPlainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func join(path, key string) string {
	switch {
	case !rxPlainKey.MatchString(key):
		return path + "[" + quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}
