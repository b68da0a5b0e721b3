# How many tokens a round could yield at most from n-gram lookups in the greedy texts of records (hindsight).
import json
from collections import defaultdict
D=json.load(open('rec.json'))['texts']

def oracle(prompt,text,depth,least,switch=False,extra=(),skip=False):
    """(rounds, tokens): each round takes, of all earlier places that follow the same `least` tokens, the one that goes
    on rightly longest. switch: after every guess any place may be taken again. extra: other texts to look in."""
    T=prompt+text; n0=len(prompt); p=n0; rounds=0; acc=0
    pos=defaultdict(list)
    def add(e,t,S): pos[tuple(t)].append((S,e))
    for S in extra:
        for e in range(least,len(S)): pos[tuple(S[e-least:e])].append((S,e))
    done=least
    while p<len(T):
        while done<p:    # places whose next token is known; the last is p-1's predecessor
            pos[tuple(T[done-least:done])].append((T,done)); done+=1
        a=0
        if not switch:
            for S,e in pos.get(tuple(T[p-least:p]),()):
                m=0
                while m<depth and p+m<len(T) and e+m<len(S) and S[e+m]==T[p+m]: m+=1
                a=max(a,m)
        else:
            while a<depth and p+a<len(T):
                if any(S[e]==T[p+a] for S,e in pos.get(tuple(T[p+a-least:p+a]),())) or \
                   any(T[q-least:q]==T[p+a-least:p+a] and T[q]==T[p+a] for q in range(p,p+a)): a+=1
                else: break
        a=min(a,len(T)-p-1); rounds+=1; acc+=a; p+=a+1
    return rounds,acc

def latest(prompt,text,depth,extra=(),kmax=32,least=1):
    """No hindsight: the latest place of the longest match, always guessed."""
    T=prompt+text;p=len(prompt);rounds=acc=0
    while p<len(T):
        best=(0,None,0)
        for S,end in [(T,p)]+[(S,len(S)) for S in extra]:
            for e in range(least,end):
                if S[e-1]!=T[p-1]: continue
                m=1
                while m<kmax and e-m>0 and p-m>0 and S[e-m-1]==T[p-m-1]: m+=1
                key=(m,S is T,e)
                if m>=least and (best[1] is None or key>best[:3]): best=(m,S is T,e); src=S
        a=0
        if best[1] is not None:
            e=best[2]; G=list(T[:p])
            for i in range(depth):
                if src is not T and e+i>=len(src): break
                g=src[e+i] if src is not T else (T[e+i] if e+i<p else G[e+i])
                G.append(g)
                if p+i>=len(T) or T[p+i]!=g: break
                a+=1
        a=min(a,len(T)-p-1); rounds+=1;acc+=a;p+=a+1
    return rounds,acc
def mean(f,ids,n):
    r=a=0
    for d in D:
        if d['id'] in ids:
            x,y=f(d['prompt'],d['text'][:n]); r+=x;a+=y
    return 1+a/r
ALL=[d['id'] for d in D]; SIX=ALL[:6]; HELD=ALL[5:10]
def others(skip): return [d['prompt']+d['text'] for d in D if d['id'] in skip]
if __name__=='__main__':
    out=[]
    for ids,name in((SIX,'1-6'),(ALL,'1-12'),(HELD,'6-10')):
        for n in(96,256):
            for depth in(4,8):
                row=dict(prompts=name,tokens=n,depth=depth)
                for k in(1,2,3,4,6): row[f'hindsight k>={k}']=round(mean(lambda p,t:oracle(p,t,depth,k),ids,n),3)
                row['hindsight k>=1, any place after each guess']=round(mean(lambda p,t:oracle(p,t,depth,1,True),ids,n),3)
                row['latest of longest, always']=round(mean(lambda p,t:latest(p,t,depth),ids,n),3)
                if name=='6-10':
                    tr=[d['prompt']+d['text'] for d in D if d['id'] in ALL[:5]]
                    row['hindsight k>=1 with texts of 1-5']=round(mean(lambda p,t:oracle(p,t,depth,1,extra=tr),ids,n),3)
                    row['any place after each guess, with texts of 1-5']=round(mean(lambda p,t:oracle(p,t,depth,1,True,extra=tr),ids,n),3)
                    row['latest of longest with texts of 1-5']=round(mean(lambda p,t:latest(p,t,depth,extra=tr),ids,n),3)
                out.append(row); print(json.dumps(row),flush=True)
    json.dump(out,open('records-bound.json','w'),indent=1)
