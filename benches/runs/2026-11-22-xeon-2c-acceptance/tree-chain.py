# python tree-chain.py select SEL.raw… | test TREE CHAIN TEST.raw…   (files of `foretoken bench --raw`)
import json,sys
import numpy as np
def runs(*files):
    A={}
    for f in files:
        L=[json.loads(x) for x in open(f)]; h=L[0]
        for r in L[1:]:
            a=A.setdefault(h['configs'][r['method']]['name'],{}).setdefault(h['prompts'][r['prompt']]['id'],[0,0])
            a[0]+=r['stats']['accepted']; a[1]+=r['stats']['rounds']
    return A
mal=lambda x: 1+x[0]/x[1]
if sys.argv[1]=='select':
    A=runs(*sys.argv[2:])
    for n,d in A.items():
        v=np.array(list(d.values())); print(f'{n:10} {mal(v.sum(0)):.4f}  prompts {len(v)}')
        ks={}
        for k,x in d.items(): ks.setdefault(k.split('-')[0],[]).append(x)
        print('            ',{k:round(float(mal(np.array(x).sum(0))),2) for k,x in ks.items()})
else:
    tree,chain=sys.argv[2:4]; A=runs(*sys.argv[4:])
    ids=sorted(A[tree]); t=np.array([A[tree][i] for i in ids],float); c=np.array([A[chain][i] for i in ids],float)
    kind=np.array([i.split('-')[0] for i in ids]); rng=np.random.default_rng(1); B=100_000
    d=mal(t.sum(0))-mal(c.sum(0))
    def boot(draw):
        out=[]
        for s in range(0,B,5000):
            ix=draw(5000); T=t[ix].sum(1); C=c[ix].sum(1); out.append(T[:,0]/T[:,1]-C[:,0]/C[:,1])
        return np.percentile(np.concatenate(out),[2.5,97.5])
    n=len(ids); ks=sorted(set(kind)); groups=[np.where(kind==k)[0] for k in ks]
    strat=lambda m: np.concatenate([rng.choice(g,(m,len(g))) for g in groups],1)
    res=dict(tree=tree,chain=chain,prompts=n,tree_length=mal(t.sum(0)),chain_length=mal(c.sum(0)),difference=d,interval_95=list(boot(lambda m:rng.integers(0,n,(m,n)))),interval_95_within_kinds=list(boot(strat)))
    means=[]
    for s in range(0,B,5000):
        D=0
        for g in groups:
            ix=rng.choice(g,(5000,len(g))); T=t[ix].sum(1); C=c[ix].sum(1); D=D+(T[:,0]/T[:,1]-C[:,0]/C[:,1])/len(groups)
        means.append(D)
    res['mean_of_kinds']=dict(tree=float(np.mean([mal(t[g].sum(0)) for g in groups])),chain=float(np.mean([mal(c[g].sum(0)) for g in groups])),interval_95=list(np.percentile(np.concatenate(means),[2.5,97.5])))
    res['mean_of_kinds']['difference']=res['mean_of_kinds']['tree']-res['mean_of_kinds']['chain']
    res['kinds']={k:dict(tree=mal(t[g].sum(0)),chain=mal(c[g].sum(0)),difference=mal(t[g].sum(0))-mal(c[g].sum(0))) for k,g in zip(ks,groups)}
    res['prompts_where_tree_is_longer']=int(sum(mal(a)>mal(b) for a,b in zip(t,c)))
    print(json.dumps(res,indent=1,default=float))
