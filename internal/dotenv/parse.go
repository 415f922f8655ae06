package dotenv

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads the content of a file. Its errors are [Errors], which name the file
// as it is given here. The variables are in the order of the file, each name once.
func Parse(file string, content []byte) ([]Variable, error) {
	p := &parser{file: file, line: 1, lines: map[string]int{}}
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	switch {
	case len(content) > MaxBytes:
		p.fail("the file is larger than 1 MiB", "is this the right file?")
	case !utf8.Valid(content):
		p.upTo(content, func(b []byte) bool { r, n := utf8.DecodeRune(b); return r == utf8.RuneError && n == 1 })
		p.fail("this is not UTF-8", "save the file as UTF-8")
	case bytes.IndexByte(content, 0) >= 0:
		p.upTo(content, func(b []byte) bool { return b[0] == 0 })
		p.fail("a variable can't hold a NUL character", "remove it")
	default:
		p.rest = string(content)
		for p.rest != "" && len(p.errs) < maxErrors {
			p.entry()
		}
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.found, nil
}

// parser goes through a file, of which rest is left.
type parser struct {
	file  string
	rest  string
	line  int
	done  int // characters of the line that were read
	found []Variable
	lines map[string]int // by name
	errs  Errors
}

// upTo goes forward to where stop says so.
func (p *parser) upTo(content []byte, stop func([]byte) bool) {
	for len(content) > 0 && !stop(content) {
		r, n := utf8.DecodeRune(content)
		content = content[n:]
		if p.done++; r == '\n' {
			p.line, p.done = p.line+1, 0
		}
	}
}

func (p *parser) fail(message, fix string) {
	if len(p.errs) == maxErrors {
		return
	}
	p.errs = append(p.errs, &Error{File: p.file, Line: p.line, Column: p.done + 1, Message: message, Fix: fix})
}

// take reads n bytes, none of them a line end, and returns them.
func (p *parser) take(n int) string {
	taken := p.rest[:n]
	p.done += utf8.RuneCountInString(taken)
	p.rest = p.rest[n:]
	return taken
}

// takeWhile reads characters as long as they are in set.
func (p *parser) takeWhile(set string) string {
	return p.take(len(p.rest) - len(strings.TrimLeft(p.rest, set)))
}

const blanks = " \t"

// lineLength is how much is left of the line, without its end.
func (p *parser) lineLength() int {
	n := strings.IndexByte(p.rest, '\n')
	if n < 0 {
		n = len(p.rest)
	}
	return len(strings.TrimSuffix(p.rest[:n], "\r"))
}

// nextLine skips what is left of the line.
func (p *parser) nextLine() {
	_, p.rest, _ = strings.Cut(p.rest, "\n")
	p.line, p.done = p.line+1, 0
}

// entry reads a variable, or a line that has none.
func (p *parser) entry() {
	defer p.nextLine()
	p.takeWhile(blanks)
	if p.atEnd() {
		return
	}
	if after, ok := strings.CutPrefix(p.rest, "export"); ok && strings.IndexAny(after, blanks) == 0 {
		p.take(len("export"))
		p.takeWhile(blanks)
		// A variable may have that name, too.
		if strings.HasPrefix(p.rest, "=") {
			p.value("export")
			return
		}
	}
	begin := p.done
	name := p.takeWhile(nameCharacters)
	p.takeWhile(blanks)
	if !strings.HasPrefix(p.rest, "=") {
		// Not a word of it is shown: it may be a line of a key.
		if strings.IndexByte(p.rest[:p.lineLength()], '=') < 0 {
			p.done = begin
			p.fail("this line has no name and =", "write NAME=value, a # before a comment, and quotes around a value of several lines")
		} else {
			p.fail("this can't be in a variable's name", "use A–Z, a–z, 0–9 and _")
		}
		return
	}
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		p.done = begin
		p.fail("this is not the name of a variable", "use A–Z, a–z, 0–9 and _, not a digit first")
		return
	}
	if before := p.lines[name]; before > 0 {
		p.done = begin
		p.fail(fmt.Sprintf("the variable stands in line %d already", before), "remove one of them")
		return
	}
	p.value(name)
}

const nameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

// atEnd reports whether nothing but a comment is left of the line.
func (p *parser) atEnd() bool { return p.lineLength() == 0 || p.rest[0] == '#' }

// value reads what follows a name.
func (p *parser) value(name string) {
	line := p.line
	p.take(len("="))
	blank := p.takeWhile(blanks) != ""
	var value string
	ok := true
	switch {
	case p.lineLength() == 0 || blank && p.rest[0] == '#':
	case p.rest[0] == '\'':
		value, ok = p.quoted('\'')
	case p.rest[0] == '"':
		value, ok = p.quoted('"')
	case p.rest[0] == '`':
		p.fail("this quote is not known here", `use " or '`)
		return
	default:
		value, ok = p.plain()
	}
	if ok {
		p.lines[name] = line
		p.found = append(p.found, Variable{Name: name, Value: value, File: p.file, Line: line})
	}
}

// plain reads a value without quotes.
func (p *parser) plain() (string, bool) {
	length := p.lineLength()
	for i := range length {
		if i > 0 && p.rest[i] == '#' && strings.IndexByte(blanks, p.rest[i-1]) >= 0 {
			length = i
			break
		}
	}
	text := strings.TrimRight(p.rest[:length], blanks)
	if i := substitution(text); i >= 0 {
		p.take(i)
		p.refuseSubstitution()
		return "", false
	}
	if i := strings.IndexByte(text, '\r'); i >= 0 {
		p.take(i)
		p.fail("there is a carriage return in the value", "end lines with LF or CRLF, and put the value into quotes if it has several")
		return "", false
	}
	return p.take(len(text)), true
}

// substitution returns where text has ${ or $(, or -1.
func substitution(text string) int {
	for i := range len(text) - 1 {
		if text[i] == '$' && (text[i+1] == '{' || text[i+1] == '(') {
			return i
		}
	}
	return -1
}

func (p *parser) refuseSubstitution() {
	p.fail("variables and commands are not put in here", "write the value itself, or put it into single quotes if this is it")
}

// quoted reads a value in quotes, and what is left of its last line.
func (p *parser) quoted(quote byte) (string, bool) {
	line, column, errs := p.line, p.done, len(p.errs)
	p.take(1)
	var value strings.Builder
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == quote:
			p.take(1)
			p.takeWhile(blanks)
			if !p.atEnd() {
				p.fail("something follows the closing quote", "remove it, put a # before a comment, or a \\ before a \" of the value")
			}
			return value.String(), len(p.errs) == errs
		case c == '\n':
			p.nextLine()
			value.WriteByte('\n')
		case strings.HasPrefix(p.rest, "\r\n"):
			p.nextLine()
			value.WriteByte('\n')
		case quote == '"' && c == '\\':
			p.escape(&value)
		case quote == '"' && substitution(p.rest[:min(2, len(p.rest))]) == 0:
			p.refuseSubstitution()
			p.take(2)
		default:
			_, n := utf8.DecodeRuneInString(p.rest)
			value.WriteString(p.take(n))
		}
	}
	// What follows was taken for the value: whatever is wrong with it, this is why.
	p.errs = p.errs[:errs]
	p.line, p.done = line, column
	p.fail("this quote is never closed", fmt.Sprintf("put a %c at the value's end", quote))
	return "", false
}

// escapes are what may follow a backslash in double quotes.
var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '"': '"', '$': '$'}

func (p *parser) escape(value *strings.Builder) {
	if len(p.rest) > 1 {
		if c, ok := escapes[p.rest[1]]; ok {
			p.take(2)
			value.WriteByte(c)
			return
		}
	}
	p.fail("this escape is not known", `use \n, \r, \t, \\, \" or \$; a backslash is \\, or put the value into single quotes`)
	p.take(1)
}
