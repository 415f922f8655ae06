package manifest

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	maxInstances = 100
	nameFix      = "use a–z, 0–9 and -, at most 63, not - first"
)

// ownVariables are set for every child, so that a value of the manifest would be lost.
var ownVariables = []string{
	"PORT", "KEELSON_ENGINE_URL", "KEELSON_ENGINE_CREDENTIALS", "KEELSON_ADMIN_URL", "KEELSON_SERVICE", "KEELSON_INSTANCE",
}

// OwnVariables returns the names of the variables that `keelson up` sets for every child: nothing else can set them.
func OwnVariables() []string { return slices.Clone(ownVariables) }

// dependency is one dependsOn entry.
type dependency struct {
	from, to string
	node     *yaml.Node
	path     string
}

func (p *parser) services(n *yaml.Node, path string) {
	p.mapping(n, path, func(key, value *yaml.Node) {
		if why := badName(key.Value); why != "" {
			p.fail(key, path, nameFix, "%s %s", quote(key.Value), why)
			return
		}
		p.names = append(p.names, key.Value)
		p.m.Services[key.Value] = p.service(key, value, join(path, key.Value))
	})
}

func (p *parser) service(key, n *yaml.Node, path string) Service {
	s := Service{Name: key.Value, Instances: 1}
	var command *yaml.Node
	failed := len(p.errs)
	if n.ShortTag() == "!!null" {
		p.fail(key, path, "add package: ./path, or command: [program, argument]", "the service has neither package nor command")
		return s
	}
	p.object(n, path,
		field{"package", func(n *yaml.Node, path string) {
			p.string(&s.Package)(n, path)
			if strings.HasPrefix(s.Package, "-") || strings.ContainsFunc(s.Package, isControl) {
				p.fail(n, path, "write a Go package such as ./cmd/users", "%s is not a package", quote(s.Package))
			}
		}},
		field{"command", func(n *yaml.Node, path string) {
			command = n
			p.texts(n, path, p.argument(&s.Command))
			if len(s.Command) > 0 && s.Command[0] == "" {
				p.fail(n, path, "write [program, argument]", "the program is empty")
			}
		}},
		field{"args", func(n *yaml.Node, path string) { p.texts(n, path, p.argument(&s.Args)) }},
		field{"port", func(n *yaml.Node, path string) {
			set(&s.Port)(p.number(n, path, 0, 65535))
			p.take(s.Port, n, path)
		}},
		field{"instances", func(n *yaml.Node, path string) { set(&s.Instances)(p.number(n, path, 1, maxInstances)) }},
		field{"env", func(n *yaml.Node, path string) { p.env(&s, n, path) }},
		field{"dependsOn", func(n *yaml.Node, path string) {
			p.texts(n, path, func(to string, n *yaml.Node, path string) {
				if slices.Contains(s.DependsOn, to) {
					p.fail(n, path, "remove one of them", "%s stands twice", quote(to))
					return
				}
				s.DependsOn = append(s.DependsOn, to)
				p.graph = append(p.graph, dependency{s.Name, to, n, path})
			})
		}},
	)
	switch {
	case len(p.errs) > failed: // what is missing may be what could not be read
	case s.Package == "" && len(s.Command) == 0:
		p.fail(key, path, "add package: ./path, or command: [program, argument]", "the service has neither package nor command")
	case s.Package != "" && len(s.Command) > 0:
		p.fail(command, path+".command", "keep one of them", "the service has both package and command")
	}
	return s
}

// argument appends arguments of a program, which cannot hold a NUL.
func (p *parser) argument(to *[]string) func(string, *yaml.Node, string) {
	return func(s string, n *yaml.Node, path string) {
		if strings.Contains(s, "\x00") {
			p.fail(n, path, "remove it", "an argument cannot hold a NUL character")
			return
		}
		*to = append(*to, s)
	}
}

func (p *parser) env(s *Service, n *yaml.Node, path string) {
	s.Env = map[string]string{}
	p.mapping(n, path, func(key, value *yaml.Node) {
		at := join(path, key.Value)
		v, ok := p.text(value, at)
		switch {
		case !ok:
		case !isVariable(key.Value):
			p.fail(key, path, "use A–Z, a–z, 0–9 and _, not a digit first", "%s is not the name of a variable", quote(key.Value))
		case strings.Contains(v, "\x00"):
			p.fail(value, at, "remove it", "a variable cannot hold a NUL character")
		default:
			s.Env[key.Value] = v
		}
		if slices.Contains(ownVariables, key.Value) {
			p.warn(key, at, "remove it", "keelson sets this variable itself, so the value is not used")
		}
	})
}

// listen reads host:port into to.
func (p *parser) listen(to *string, optional bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := p.text(n, path)
		if !ok || s == "" && optional {
			return
		}
		port, why := parseListen(s)
		if why != "" {
			p.fail(n, path, "write host:port, such as 127.0.0.1:3000", "%s %s", quote(s), why)
			return
		}
		*to = s
		p.listeners[path] = true
		p.take(port, n, path)
	}
}

// take notes a port and refuses one that is taken. 0 is any free one.
func (p *parser) take(number int, n *yaml.Node, path string) {
	if number == 0 {
		return
	}
	if by, taken := p.ports[number]; taken {
		p.fail(n, path, "use another port, or 0 for a free one", "port %d is taken by %s in line %d", number, by.path, by.node.Line)
		return
	}
	p.ports[number] = port{path, n}
}

// takeDefault does it for a listener that the file does not set.
func (p *parser) takeDefault(path, listen string) {
	if p.listeners[path] {
		return
	}
	number, _ := parseListen(listen)
	if by, taken := p.ports[number]; taken {
		p.fail(by.node, by.path, "use another one, or set "+path, "port %d is the default of %s", number, path)
	}
}

// refer warns later if there is no such service: it may be one that is started by hand.
func (p *parser) refer(service string, n *yaml.Node, path string) {
	p.later = append(p.later, func() {
		if _, ok := p.m.Services[service]; !ok && service != "" && len(p.warnings) < maxErrors {
			p.warn(n, path, didYouMean(service, p.names), "there is no service %s here; requests get 503 until one is started",
				quote(service))
		}
	})
}

// sortServices returns the services in the order of their dependencies, and refuses unknown ones and cycles.
func (p *parser) sortServices() []string {
	edges := map[string][]dependency{}
	for _, e := range p.graph {
		if p.full() {
			return nil
		}
		if _, ok := p.m.Services[e.to]; !ok {
			p.fail(e.node, e.path, didYouMean(e.to, p.names), "there is no service %s", quote(e.to))
			continue
		}
		edges[e.from] = append(edges[e.from], e)
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	order := make([]string, 0, len(p.names))
	var trail []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = visiting
		trail = append(trail, name)
		for _, e := range edges[name] {
			switch state[e.to] {
			case visiting:
				cycle := append(slices.Clone(trail[slices.Index(trail, e.to):]), e.to)
				p.fail(e.node, e.path, "remove one of these dependencies", "services depend on each other: %s", strings.Join(cycle, " → "))
			case 0:
				visit(e.to)
			}
		}
		trail = trail[:len(trail)-1]
		state[name] = done
		order = append(order, name)
	}
	for _, name := range p.names {
		if state[name] == 0 {
			visit(name)
		}
	}
	return order
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
