package openapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keelson-go/keelson/problem"
)

// maxFieldErrors is how many fields of a body are told; nobody reads more.
const maxFieldErrors = 50

// checker holds a JSON value against a schema. It walks objects and arrays itself, so that it knows the exact way to
// each value, and lets huma judge single values.
type checker struct {
	schemas huma.Registry
	errs    []problem.FieldError
	result  huma.ValidateResult
	path    *huma.PathBuffer
}

// place is the way to a value: nil for the body itself. It becomes text only when it is told.
type place struct {
	up    *place
	name  string // of a member
	index int    // of an element; -1 for a member
}

func (p *place) member(name string) *place { return &place{up: p, name: name, index: -1} }
func (p *place) element(i int) *place      { return &place{up: p, index: i} }

func (p *place) pointer() string {
	var tokens []string
	for ; p != nil; p = p.up {
		if p.index >= 0 {
			tokens = append(tokens, strconv.Itoa(p.index))
		} else {
			tokens = append(tokens, p.name)
		}
	}
	slices.Reverse(tokens)
	return problem.Pointer(tokens...)
}

func (c *checker) fail(at *place, detail string) {
	if len(c.errs) < maxFieldErrors {
		c.errs = append(c.errs, problem.FieldError{Pointer: at.pointer(), Detail: detail})
	}
}

// check adds an error for everything in v, which json.Decoder.UseNumber has decoded, that the schema does not allow.
func (c *checker) check(s *huma.Schema, v any, at *place) {
	for s != nil && s.Ref != "" {
		s = c.schemas.SchemaFromRef(s.Ref)
	}
	switch {
	case s == nil || len(c.errs) >= maxFieldErrors || v == nil && s.Nullable:
		return
	case s.OneOf != nil || s.AnyOf != nil || s.AllOf != nil || s.Not != nil:
		c.value(s, v, at)
		return
	}
	switch s.Type {
	case huma.TypeObject:
		c.object(s, v, at)
	case huma.TypeArray:
		c.array(s, v, at)
	case huma.TypeInteger:
		// A number such as 1.0 or 1e3 is an integer for JSON Schema, but none that decodes into one.
		if n, ok := v.(json.Number); ok && !isInteger(s, n.String()) {
			c.fail(at, "expected a whole number in range, in plain digits")
			return
		}
		c.value(s, v, at)
	default:
		c.value(s, v, at)
	}
}

// unique adds an error for every member that stands twice in the next value of d, which is known to be JSON. Decoding into
// a struct merges the two, while the value that was checked has only the last one.
func (c *checker) unique(d *json.Decoder, at *place) {
	switch t, _ := d.Token(); t {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			t, _ := d.Token()
			name, _ := t.(string)
			member := at.member(name)
			if seen[name] {
				c.fail(member, "is there twice")
			}
			seen[name] = true
			c.unique(d, member)
		}
		_, _ = d.Token() // the bracket
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			c.unique(d, at.element(i))
		}
		_, _ = d.Token()
	}
}

func isInteger(s *huma.Schema, n string) bool {
	bits := 64
	if s.Format == "int32" {
		bits = 32
	}
	if _, err := strconv.ParseInt(n, 10, bits); err == nil {
		return true
	}
	_, err := strconv.ParseUint(n, 10, bits)
	return err == nil && s.Minimum != nil && *s.Minimum >= 0
}

func (c *checker) object(s *huma.Schema, v any, at *place) {
	m, ok := v.(map[string]any)
	if !ok {
		c.fail(at, "expected object")
		return
	}
	for _, name := range slices.Sorted(slices.Values(s.Required)) {
		if _, ok := m[name]; !ok && !c.readOnly(s.Properties[name]) {
			c.fail(at.member(name), "is required")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		property, known := s.Properties[name]
		switch {
		case known && c.readOnly(property):
			c.fail(at.member(name), "is set by the server and cannot be sent")
		case known && m[name] == nil && !slices.Contains(s.Required, name):
			// null for an optional field is the same as leaving it out
		case known:
			c.check(property, m[name], at.member(name))
			for _, other := range s.DependentRequired[name] {
				if _, ok := m[other]; !ok {
					c.fail(at.member(other), "is required together with "+name)
				}
			}
		default:
			c.additional(s, name, m[name], at.member(name))
		}
	}
	if s.MinProperties != nil && len(m) < *s.MinProperties {
		c.fail(at, "expected at least "+strconv.Itoa(*s.MinProperties)+" members")
	}
	if s.MaxProperties != nil && len(m) > *s.MaxProperties {
		c.fail(at, "expected at most "+strconv.Itoa(*s.MaxProperties)+" members")
	}
}

// additional checks a member the schema does not name.
func (c *checker) additional(s *huma.Schema, name string, v any, at *place) {
	switch additional := s.AdditionalProperties.(type) {
	case bool:
		detail := "is not a known field"
		for known := range s.Properties {
			if strings.EqualFold(known, name) { // which decoding takes for the known one
				detail += "; did you mean " + known + "?"
				additional = false
			}
		}
		if !additional {
			c.fail(at, detail)
		}
	case *huma.Schema:
		c.check(additional, v, at)
	}
}

func (c *checker) readOnly(s *huma.Schema) bool { return s != nil && s.ReadOnly }

func (c *checker) array(s *huma.Schema, v any, at *place) {
	list, ok := v.([]any)
	if !ok {
		c.fail(at, "expected array")
		return
	}
	// The rules for the list as a whole, with nothing as its elements. Distinctness is checked here: huma panics at elements
	// that are objects.
	whole := *s
	whole.Items = &huma.Schema{}
	whole.UniqueItems = false
	c.value(&whole, make([]any, len(list)), at)

	seen := map[string]bool{}
	for i, e := range list {
		if s.UniqueItems {
			text, err := json.Marshal(e)
			if err != nil || seen[string(text)] {
				c.fail(at.element(i), "is in the list already")
			}
			seen[string(text)] = true
		}
		if s.Items != nil {
			c.check(s.Items, e, at.element(i))
		}
	}
}

// value lets huma judge a value as one.
func (c *checker) value(s *huma.Schema, v any, at *place) {
	v, ok := plainNumbers(v)
	if !ok {
		c.fail(at, "the number is out of range")
		return
	}
	c.path.Reset()
	c.result.Reset()
	huma.Validate(c.schemas, s, c.path, huma.ModeWriteToServer, v, &c.result)
	for _, err := range c.result.Errors {
		detail := notValid
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail = unquoted(d.ErrorDetail().Message)
		}
		c.fail(at, detail)
	}
}

// plainNumbers returns v with the float64 huma expects for every number; false if one does not fit.
func plainNumbers(v any) (any, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			var ok bool
			if list[i], ok = plainNumbers(e); !ok {
				return nil, false
			}
		}
		return list, true
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			var ok bool
			if m[k], ok = plainNumbers(e); !ok {
				return nil, false
			}
		}
		return m, true
	}
	return v, true
}
