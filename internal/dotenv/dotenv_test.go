package dotenv_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/internal/dotenv"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want []string // "line NAME=value"
	}{
		"nothing":                {"", nil},
		"blank lines, comments":  {"\n  \t\n# A=1\n   # B=2\n", nil},
		"plain":                  {"A=1\nB=two words\n_c9=x", []string{"1 A=1", "2 B=two words", "3 _c9=x"}},
		"blanks":                 {"  A \t= \t x y \t \n", []string{"1 A=x y"}},
		"empty":                  {"A=\nB=''\nC=\"\"\nD= # none\nE=\t", []string{"1 A=", "2 B=", "3 C=", "4 D=", "5 E="}},
		"export":                 {"export A=1\n  export\tB=2\nexport=3\nexport_=4\nexportC=5", []string{"1 A=1", "2 B=2", "3 export=3", "4 export_=4", "5 exportC=5"}},
		"export =":               {"export =1", []string{"1 export=1"}},
		"comments":               {"A=x # y\nB=x#y\nC='x' # y\nD=\"x\"# y\nE=#x\nF=x\t#y", []string{"1 A=x", "2 B=x#y", "3 C=x", "4 D=x", "5 E=#x", "6 F=x"}},
		"special, yet plain":     {"A=pa$$w`rd$x\nB=it's\nC={\"a\": 1}\nD=a\\nb\nE=a=b==\nF=$", []string{"1 A=pa$$w`rd$x", "2 B=it's", "3 C={\"a\": 1}", "4 D=a\\nb", "5 E=a=b==", "6 F=$"}},
		"single quotes":          {`A=' a\n"${x}$(y) # b '`, []string{`1 A= a\n"${x}$(y) # b `}},
		"double quotes":          {`A=" a\n\r\t\\\"\$'#$x$ "`, []string{"1 A= a\n\r\t\\\"$'#$x$ "}},
		"escaped substitution":   {`A="\${x}"`, []string{"1 A=${x}"}},
		"several lines":          {"A=\"one\ntwo\" # c\nB='one\n\ntwo\n'\nC=3", []string{"1 A=one\ntwo", "3 B=one\n\ntwo\n", "7 C=3"}},
		"CRLF":                   {"A=1\r\n\r\n# c\r\nB='x\r\ny'\r\nC=\"x\r\ny\"\r\nD=\r\n", []string{"1 A=1", "4 B=x\ny", "6 C=x\ny", "8 D="}},
		"byte order mark":        {"\uFEFFA=1", []string{"1 A=1"}},
		"not ASCII":              {"A=Grüße, 世界\nB='é'", []string{"1 A=Grüße, 世界", "2 B=é"}},
		"the end is in a line":   {"A='x'", []string{"1 A=x"}},
		"a carriage return in '": {"A='a\rb'", []string{"1 A=a\rb"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := dotenv.Parse(".env", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, v := range got {
				lines = append(lines, fmt.Sprintf("%d %s=%s", v.Line, v.Name, v.Value))
			}
			if diff := cmp.Diff(tt.want, lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	tests := []struct{ text, want string }{
		{secret, "f:1:1: this line has no name and =; write NAME=value, a # before a comment, and quotes around a value of several lines"},
		{"A=1\n  " + secret + "\n", "f:2:3: this line has no name"},
		{"export", "f:1:1: this line has no name"},
		{"export " + secret, "f:1:8: this line has no name"},
		{"=" + secret, "f:1:1: this is not the name of a variable; use A–Z, a–z, 0–9 and _, not a digit first"},
		{"1A=" + secret, "f:1:1: this is not the name"},
		{"A-B=" + secret, "f:1:2: this can't be in a variable's name; use A–Z, a–z, 0–9 and _"},
		{secret + "/+AB==", "f:1:8: this can't be in a variable's name"},
		{"A B=" + secret, "f:1:3: this can't be in a variable's name"},
		{"Ä=" + secret, "f:1:1: this can't be in a variable's name"},
		{"A: " + secret + "=", "f:1:2: this can't be in"},
		{"A='" + secret, "f:1:3: this quote is never closed; put a ' at the value's end"},
		{"A='" + secret + "\nB=1\n", "f:1:3: this quote is never closed"},
		{"\nA=\"" + secret + "\\", "f:2:3: this quote is never closed; put a \" at the value's end"},
		{"A=`" + secret + "`", "f:1:3: this quote is not known here; use \" or '"},
		{"A='x'" + secret, "f:1:6: something follows the closing quote"},
		{"A='x\ny' " + secret, "f:2:4: something follows the closing quote"},
		{`A="ü\q` + secret + `"`, `f:1:5: this escape is not known; use \n, \r, \t, \\, \" or \$`},
		{"A=\"a\nb\\\n" + secret + "\"", "f:2:2: this escape is not known"},
		{"A=x${" + secret + "}", "f:1:4: variables and commands are not put in here; write the value itself, or put it into single quotes if this is it"},
		{"A=$(" + secret + ")", "f:1:3: variables and commands"},
		{`A="$(` + secret + `)"`, "f:1:4: variables and commands"},
		{"A=1\nA=" + secret, "f:2:1: the variable stands in line 1 already; remove one of them"},
		{"A=" + secret + "\rB=1", "f:1:10: there is a carriage return in the value"},
		{"A=ä\nB=ü\xff" + secret, "f:2:4: this is not UTF-8; save the file as UTF-8"},
		{"\xff\xfeA\x00=\x00", "f:1:1: this is not UTF-8"},
		{"A=1\nB=\x00" + secret, "f:2:3: a variable can't hold a NUL character; remove it"},
		{strings.Repeat("#\n", dotenv.MaxBytes/2) + "A", "f:1:1: the file is larger than 1 MiB"},
	}
	for _, tt := range tests {
		got, err := dotenv.Parse("f", []byte(tt.text))
		if got != nil || err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.40q: %v, %v; want %q", tt.text, got, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error shows what may be secret, or is more than one: %v", tt.text, err)
		}
		if e, ok := errors.AsType[*dotenv.Error](err); !ok || e.File != "f" || e.Fix == "" {
			t.Errorf("%q: error %#v", tt.text, err)
		}
	}
}

// All problems are told at once, up to a bound, and those of one value do not
// make others of the lines after it.
func TestAllProblems(t *testing.T) {
	t.Parallel()
	_, err := dotenv.Parse("f", []byte("A=\"\\q\\w\"\noops\nB=1\nB=2\nC='\nD=\"\\q\n"))
	var got []string
	for _, e := range err.(dotenv.Errors) {
		got = append(got, fmt.Sprintf("%d:%d", e.Line, e.Column))
	}
	if diff := cmp.Diff([]string{"1:4", "1:6", "2:1", "4:1", "5:3"}, got); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{strings.Repeat("x\n", 1000), `A="` + strings.Repeat(`\q`, 1000) + `"`} {
		_, err = dotenv.Parse("f", []byte(text))
		if all, ok := errors.AsType[dotenv.Errors](err); !ok || len(all) != 20 {
			t.Errorf("%d problems, want 20", len(all))
		}
	}
}

func TestLoadFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := dotenv.LoadFolder(dir); got != nil || err != nil {
		t.Errorf("no files: %v, %v", got, err)
	}
	write(".env", "A=1\nB=2\n")
	write(".env.local", "B=3\n")
	got, err := dotenv.LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []dotenv.Variable{
		{"A", "1", filepath.Join(dir, ".env"), 1}, {"B", "2", filepath.Join(dir, ".env"), 2},
		{"B", "3", filepath.Join(dir, ".env.local"), 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	write(".env", "A\n")
	write(".env.local", "B=3\n'\n")
	_, err = dotenv.LoadFolder(dir)
	if all, ok := errors.AsType[dotenv.Errors](err); !ok || len(all) != 2 {
		t.Errorf("two bad files: %v", err)
	}

	// Some tools make a folder .env; a pipe would be waited for.
	if err := errors.Join(os.Remove(filepath.Join(dir, ".env")), os.Mkdir(filepath.Join(dir, ".env"), 0o700)); err != nil {
		t.Fatal(err)
	}
	write(".env.local", "B=3\n")
	if got, err := dotenv.LoadFolder(dir); len(got) != 1 || err != nil {
		t.Errorf("with a folder: %v, %v", got, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, ".env.local")), syscall.Mkfifo(filepath.Join(dir, ".env.local"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := dotenv.LoadFolder(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := dotenv.Load(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestVariablesDoNotShow(t *testing.T) {
	t.Parallel()
	v := dotenv.Variable{Name: "KEY", Value: "hunter2", File: ".env", Line: 3}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("read", "variable", v)
	for _, got := range []string{log.String(), fmt.Sprint(v), fmt.Sprintf("%+v %#v %s %q", v, v, v, []any{v})} {
		if strings.Contains(got, "hunter2") || !strings.Contains(got, "KEY (.env:3)") {
			t.Errorf("shown as %q", got)
		}
	}
}

// TestAnyValueCanBeWritten: whatever a variable holds, there is a way to write it.
func TestAnyValueCanBeWritten(t *testing.T) {
	t.Parallel()
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\r", `\r`)
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune(" \t\n\r\\\"'$`#={}()aé")), rapid.Rune().Filter(func(r rune) bool { return r > 0 })), 0, 20, -1)).Draw(t, "values")
		var text strings.Builder
		for i, v := range values {
			fmt.Fprintf(&text, "export V%d = \"%s\"  # comment\n", i, escape.Replace(v))
		}
		got, err := dotenv.Parse("f", []byte(text.String()))
		if err != nil || len(got) != len(values) {
			t.Fatalf("%d variables, want %d: %v", len(got), len(values), err)
		}
		for i, v := range got {
			if v.Value != values[i] {
				t.Errorf("%q, want %q", v.Value, values[i])
			}
		}
	})
}

// FuzzParse: no input makes it fall, no error shows a value, and what is accepted
// can be in an environment.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"A=1", "export A='x\ny' # c\r\n", `A="\n\$\""`, "A=${x}", "\uFEFFA=\xff", "A=`x`", "A", "A= #", "\r\n=\r"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := dotenv.Parse("f", content)
		if problems, ok := errors.AsType[dotenv.Errors](err); err != nil && (!ok || len(problems) == 0 || len(problems) > 20 || got != nil) {
			t.Fatalf("%v, %v", got, err)
		}
		lines := strings.Count(string(content), "\n") + 1
		for _, e := range errorsOf(err) {
			if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Column > len(content)+1 {
				t.Errorf("%v is not in a file of %d lines", e, lines)
			}
		}
		seen := map[string]bool{}
		for _, v := range got {
			if seen[v.Name] || v.Name == "" || strings.ContainsAny(v.Name, "= \n") || strings.Contains(v.Value, "\x00") || v.Line < 1 || v.Line > lines {
				t.Errorf("accepted %q = %q in line %d", v.Name, v.Value, v.Line)
			}
			seen[v.Name] = true
		}
	})
}

func errorsOf(err error) dotenv.Errors {
	all, _ := errors.AsType[dotenv.Errors](err)
	return all
}
