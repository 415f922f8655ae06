package dotenv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// MaxBytes is the size beyond which a file is refused.
const MaxBytes = 1 << 20

// Files are the names of the files of a folder, in the order they count: a later
// one wins.
var Files = [...]string{".env", ".env.local"}

// Variable is one variable and where it stands. Printing or logging it does not
// show the value.
type Variable struct {
	Name, Value string
	File        string
	Line        int // of its name, from 1
}

// String returns the name and where it stands.
func (v Variable) String() string { return fmt.Sprintf("%s (%s:%d)", v.Name, v.File, v.Line) }

// GoString keeps the value out of %#v.
func (v Variable) GoString() string { return "dotenv.Variable{" + v.String() + "}" }

// LogValue keeps the value out of logs.
func (v Variable) LogValue() slog.Value { return slog.StringValue(v.String()) }

// Format keeps the value out of every other verb.
func (v Variable) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = io.WriteString(f, v.GoString()) // as fmt itself does
		return
	}
	_, _ = io.WriteString(f, v.String())
}

// LoadFolder reads the [Files] of a folder. Missing ones are fine, and so is a
// folder of such a name, which some tools make. A variable that stands in both
// comes twice: the last one counts. The problems of both files are told at once.
func LoadFolder(dir string) ([]Variable, error) {
	var all []Variable
	var problems Errors
	for _, name := range Files {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		found, err := Load(path)
		if more, ok := errors.AsType[Errors](err); ok {
			problems = append(problems, more...)
		} else if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(problems) > 0 {
		return nil, problems[:min(len(problems), maxErrors)]
	}
	return all, nil
}

// Load reads the file at path. One that can be read but not accepted gives
// [Errors].
func Load(path string) ([]Variable, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe has no other end perhaps
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read variables: %s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	return Parse(path, b)
}
