# Renders real chat templates with jinja2 as transformers does, and with foretoken; compares the prompts.
import json, os, re, struct, subprocess, sys, glob, datetime
import numpy as np
import jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
import gguf
# python templates.py llama.cpp/models/templates/ models/target.gguf FORETOKEN
T,SRC,FORETOKEN=sys.argv[1:4]
W='templates-work'; os.makedirs(W,exist_ok=True)
BOS,EOS='<s>','</s>'

class Generation(jinja2.ext.Extension):   # transformers' {% generation %}
    tags={'generation'}
    def parse(self,parser):
        line=next(parser.stream).lineno
        body=parser.parse_statements(['name:endgeneration'],drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method('_s'),[],[],body).set_lineno(line)
    def _s(self,caller): return caller()
def env():
    e=ImmutableSandboxedEnvironment(trim_blocks=True,lstrip_blocks=True,extensions=[Generation,jinja2.ext.loopcontrols])
    def raise_exception(m): raise jinja2.exceptions.TemplateError(m)
    def tojson(x,ensure_ascii=False,indent=None,separators=None,sort_keys=False):
        return json.dumps(x,ensure_ascii=ensure_ascii,indent=indent,separators=separators,sort_keys=sort_keys)
    e.filters['tojson']=tojson; e.globals['raise_exception']=raise_exception
    e.globals['strftime_now']=lambda f: datetime.datetime.now().strftime(f)
    return e
def reference(text,message,**more):
    v=dict(messages=[{'role':'user','content':message}],tools=None,documents=None,add_generation_prompt=True,bos_token=BOS,eos_token=EOS); v.update(more)
    return env().from_string(text).render(**v)

def with_template(text,out):
    """A copy of SRC whose metadata has this template."""
    r=gguf.GGUFReader(SRC)
    w=gguf.GGUFWriter(out,r.fields['general.architecture'].contents())
    for k,f in r.fields.items():
        if k.startswith('GGUF.') or k in('general.architecture','tokenizer.chat_template'): continue
        t=f.types[0]
        w.add_key_value(k,f.contents(),t,f.types[-1] if t==gguf.GGUFValueType.ARRAY else None)
    w.add_string('tokenizer.chat_template',text)
    for t in r.tensors: w.add_tensor(t.name,t.data,raw_dtype=t.tensor_type)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
VOC=gguf.GGUFReader(SRC).fields['tokenizer.ggml.tokens'].contents()
def decode(ts):
    b=b''
    for t in ts:
        p=VOC[t]; m=re.fullmatch('<0x(..)>',p)
        b+=bytes([int(m[1],16)]) if m else p.replace('\u2581',' ').encode()
    return b.decode(errors='replace')
def prompt_of(args):
    h=W+'/h'
    for x in (h,h+'.lock'):
        if os.path.exists(x): os.unlink(x)
    c=[FORETOKEN,'run','--drafter','ngram','--set','speculation.adaptive=false','--set','drafter.history='+h,
       '--set','drafter.max_match=%d'%MM,'--set','target.context=4096','-n','4','--ignore-end','--temperature','0','--json']+args
    p=subprocess.run(c,capture_output=True,text=True,env=dict(os.environ,FORETOKEN_CACHE=W,GOMP_SPINCOUNT='2000'))
    if p.returncode: return None,p.stderr.strip()
    o=json.loads(p.stdout)
    d=open(h,'rb').read()[32:]
    n,=struct.unpack('<I',d[:4]); ts=list(struct.unpack('<%dI'%n,d[16:16+4*n]))
    assert ts[-len(o['tokens']):]==o['tokens'],(ts[-4:],o['tokens'])
    return ts[:-len(o['tokens'])],o
MM=256
MSG={'plain':'Why is the sky blue?','hard':'  Is "a < b && c > d" true?\n\n- it\'s é, <b>bold</b>\n- {{ not a variable }}, </think>  \n'}
rows=[]
for f in sorted(glob.glob(T+'*.jinja'),key=str.lower):
    name=os.path.basename(f)[:-6]; text=open(f,encoding='utf8').read()
    g=W+'/m.gguf'; with_template(text,g)
    row={'template':name,'bytes':len(text.encode())}
    for k,m in MSG.items():
        r={}
        try: ref=reference(text,m)
        except Exception as e: ref=None; r['jinja2_error']=f'{type(e).__name__}: {e}'.split('\n')[0]
        a,o=prompt_of(['--target',g,'--chat','-p',m])
        if a is None: r['foretoken_error']=o
        if ref is not None:
            cut=ref[len(BOS):] if ref.startswith(BOS) else ref
            r['ref_starts_with_bos']=ref.startswith(BOS); r['ref']=ref
            open(W+'/ref.txt','w',newline='').write(cut)
            b,p=prompt_of(['--target',g,'-f',W+'/ref.txt'])
            if b is None: r['plain_error']=p
            else:
                r['ref_tokens']=p['stats']['prompt_tokens']
                if a is not None:
                    r['tokens']=o['stats']['prompt_tokens']
                    r['equal']=(a==b and r['tokens']==r['ref_tokens'] and o['tokens']==p['tokens'])
                    if not r['equal']: r['ours']=decode(a); r['theirs']=decode(b)
        elif a is not None: r['tokens']=o['stats']['prompt_tokens']; r['ours']=decode(a)
        row[k]=r
    rows.append(row)
    s=lambda r: 'equal' if r.get('equal') else ('DIFF' if 'equal' in r else 'F:'+r.get('foretoken_error','ok')[-150:]+' J:'+r.get('jinja2_error','ok')[:150])
    print(name,'|',s(row['plain']),'|',s(row['hard']),flush=True)
json.dump(rows,open('templates.json','w'),indent=1,ensure_ascii=False)
